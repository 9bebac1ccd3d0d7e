"""The browse API's pages for people, under /my/. The server renders them; they need no JavaScript."""
