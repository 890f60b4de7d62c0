//! Which servers are on this machine, so that nobody sits in between.

use std::net::IpAddr;

/// Whether each server of these lists, as `host` and `hostaddr` have them, is reached without leaving this machine: by a
/// socket, as `localhost`, or by a loopback address. Decided by what is written, and not by what a name stands for:
/// whoever answers for names must not decide how much is checked.
#[must_use]
pub fn only(host: &str, hostaddr: &str) -> bool {
    let (names, addresses): (Vec<&str>, Vec<&str>) =
        (host.split(',').collect(), hostaddr.split(',').collect());
    (0..names.len().max(addresses.len())).all(|index| {
        let name = names.get(index).copied().unwrap_or_default();
        match addresses.get(index).copied().unwrap_or_default() {
            "" => named_here(name),
            address => address_here(address),
        }
    })
}

fn named_here(name: &str) -> bool {
    name.is_empty()
        || name.starts_with(['/', '@'])
        || name.eq_ignore_ascii_case("localhost")
        || address_here(name)
}

fn address_here(text: &str) -> bool {
    text.parse()
        .is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn sockets_localhost_and_loopback_addresses_are_here() {
        for host in [
            "",
            "/tmp",
            "@bmdb",
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            ",localhost",
        ] {
            assert!(only(host, ""), "{host}");
        }
        assert!(only("db.example", "127.0.0.1"), "a tunnel ends here");
    }

    #[test]
    fn all_else_is_elsewhere() {
        for host in [
            "db",
            "localhost.example",
            "10.0.0.1",
            "::2",
            "localhost,db",
            "/tmp,192.0.2.1",
            "127.0.0.1.example",
            "0.0.0.0",
        ] {
            assert!(!only(host, ""), "{host}");
        }
        assert!(!only("localhost", "192.0.2.1"));
        assert!(!only("a,b", "127.0.0.1,192.0.2.1"));
        assert!(!only("localhost", "127.0.0.1,192.0.2.1"));
    }
}
