"""The web pages for people, at / and below /ui/. The server renders their HTML; keys have the same rights as in the API."""
