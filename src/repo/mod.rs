//! Layer `repo`.
