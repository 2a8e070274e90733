//! Layer `target`.
