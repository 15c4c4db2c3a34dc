"""The web page in a browser. A package, so that a fixture can last until the tests leave it."""
