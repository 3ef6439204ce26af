"""How a model learns an experience, and how it scores images."""
