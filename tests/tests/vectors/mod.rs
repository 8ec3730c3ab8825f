//! Published vectors and real blocks.

mod blocks;
mod headers;
mod script;
mod taproot;
