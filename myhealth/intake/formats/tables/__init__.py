"""Tables as CSV: `layout` says what the columns mean, `rows` splits the text, `cells` reads it, `reader` joins all."""
