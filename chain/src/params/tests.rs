//! Tests of the networks.
