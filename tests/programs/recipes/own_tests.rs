// The recipe consists of tests, which run as part of this program.
#[path = "../../../examples/recipes/own_tests.rs"]
mod recipe;

use super::greeting::recipe as greeting;
