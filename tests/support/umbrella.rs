//! The umbrella package has no code of its own: it owns the examples and the tests of the workspace.
