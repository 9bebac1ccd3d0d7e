"""The browse API's pages for people, under /my/: made on the server, whole without JavaScript."""
