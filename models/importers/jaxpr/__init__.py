"""Reading a jaxpr into the graph: flatten it, recognise composites, write the rest op by op."""
