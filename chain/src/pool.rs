//! The checking threads.
