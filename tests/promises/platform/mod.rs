//! Tests of the promises for the tokens of a third-party platform and of its accounts.

mod authorizations;
mod cold_start;
mod crossing_lists;
mod ends;
mod lost_events;
mod recovery;
mod reports;
mod slow_replies;
mod tickets;
mod trouble;
mod world;
mod wrong_ends;
