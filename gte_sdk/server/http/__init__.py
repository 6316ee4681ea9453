"""What comes before the routes: listening, one connection, who may ask, web pages, and how a refusal looks."""
