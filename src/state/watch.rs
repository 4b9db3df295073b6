//! Watching the state.
