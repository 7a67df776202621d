"""The web pages for people, at / and below /ui/: HTML that the server renders, with the key rules of the API."""
