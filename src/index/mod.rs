//! Layer `index`.
