//! What a snapshot does not contain: directories from which something kept names are marked, and a
//! restore with `--delete` deletes nothing there.

mod marks;
mod property;
mod world;
