//! Tests of the pushes, from single functions to real HTTP.

mod bounds;
mod cipher;
mod fixtures;
mod http;
mod keys;
mod log_lines;
mod receiver;
mod vectors;
mod xml;
