"""Wikipedia's dumps: fetched, verified, and turned into text with the articles' boundaries."""
