"""What both applications share: JSON in and out, errors, who is calling, views made of classes."""
