"""From text and conversations to packed rows, in an order that does not depend on the number of ranks."""
