//! Layer `source`.
