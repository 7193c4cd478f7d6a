//! Tests of the client over real connections, against a server with scripted replies.

mod connections;
mod fixtures;
mod hosts;
mod logging;
mod replies;
mod requests;
mod server;
