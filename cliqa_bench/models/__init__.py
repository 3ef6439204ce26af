"""Quality models, their gates, and how both become fast."""
