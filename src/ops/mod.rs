//! Layer `ops`.
