//! Each asyncio call moves its future onto the heap, and each sync call keeps it on the stack: what is rare and large, such
//! as connecting with TLS, must not be part of it.

use bmdb_core::collect::own_plan;
use bmdb_core::config::Config;
use bmdb_core::drive::Drive;
use bmdb_core::pool::Pool;
use bmdb_core::transaction::Transaction;

const LARGEST: usize = 10_000;

#[test]
fn the_futures_of_a_transaction_are_small() {
    let user = ("user".to_owned(), "nobody".to_owned());
    let config = Config::from_pairs([user]).expect("a user is all it needs");
    let mut tx = Transaction::new(Pool::new(config, Drive::Runtime, 1), own_plan());
    let begin = size_of_val(&tx.begin());
    let query = size_of_val(&tx.query("", &[]));
    let execute = size_of_val(&tx.execute("", &[]));
    let conclude = size_of_val(&tx.conclude(None));
    let sizes = [
        ("begin", begin),
        ("query", query),
        ("execute", execute),
        ("conclude", conclude),
    ];
    for (step, size) in sizes {
        assert!(size < LARGEST, "{step} is a future of {size} bytes");
    }
}
