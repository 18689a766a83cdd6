"""The whole application as a target of red teams: real server, real page in headless Chromium, and what leaves them."""
