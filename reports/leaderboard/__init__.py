"""A leaderboard of bundles: every number of it is computed from the answers while the page is built."""
