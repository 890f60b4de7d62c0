//! Properties of connection settings: any input is answered, no answer holds the password.

use std::time::Duration;

use bmdb_core::config::{Config, Endpoint, TargetSessionAttrs};
use bmdb_core::tls::SslMode;
use proptest::prelude::*;

/// No other value of these tests holds it.
const CANARY: &str = "c4n4ry";

const KEYWORDS: [&str; 44] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslsni",
    "sslcertmode",
    "sslnegotiation",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "load_balance_hosts",
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "require_auth",
    "requirepeer",
    "replication",
    "min_protocol_version",
    "max_protocol_version",
    "scram_client_key",
    "oauth_issuer",
    "service",
    "sslcompression",
    "no_such_keyword",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z0-9.,:/@*-]{0,24}",
        prop::sample::select(vec![
            "",
            "0",
            "1",
            "require",
            "verify-full",
            "system",
            "disable",
            "prefer",
            "TLSv1.3",
            "any",
            "standby",
            "random",
            "utf8",
            "127.0.0.1",
            "::1",
            "a,b",
            "5432,5433",
            "/tmp",
            "@abstract",
        ])
        .prop_map(str::to_owned),
    ]
}

fn config(pairs: &[(&str, &str)]) -> bmdb_core::error::Result<Config> {
    let user = ("user".to_owned(), "ann".to_owned());
    let pairs = pairs
        .iter()
        .map(|(keyword, value)| ((*keyword).to_owned(), (*value).to_owned()));
    Config::from_pairs(std::iter::once(user).chain(pairs))
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    config(pairs).expect_err("refused").to_string()
}

proptest! {
    #[test]
    fn any_pairs_are_answered_without_the_password(
        pairs in prop::collection::vec((prop::sample::select(KEYWORDS.to_vec()), value()), 0..8),
        position in 0usize..8,
    ) {
        let mut pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(keyword, value)| (keyword.to_owned(), value)).collect();
        let position = position.min(pairs.len());
        pairs.insert(position, ("password".to_owned(), format!("a {CANARY} b")));
        match Config::from_pairs(pairs) {
            Ok(config) => {
                prop_assert!(!config.hosts.is_empty());
                prop_assert!(config.hosts.iter().all(|host| host.password.is_some()));
                let shown = format!("{config:?} {config:#?}");
                prop_assert!(!shown.contains(CANARY));
                for host in &config.hosts {
                    let shown = format!("{host} {host:?}");
                    prop_assert!(!shown.contains(CANARY));
                }
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains(CANARY));
            }
        }
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_shown(
        keyword in prop::sample::select(KEYWORDS.to_vec()),
    ) {
        if let Err(error) = config(&[(keyword, CANARY)]) {
            prop_assert!(!error.to_string().contains(CANARY), "{}", error);
        }
    }

    #[test]
    fn each_host_has_its_port(ports in prop::collection::vec(1u16.., 1..6)) {
        let names: Vec<String> = (0..ports.len()).map(|index| format!("db{index}")).collect();
        let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
        let config = config(&[("host", &names.join(",")), ("port", &listed.join(","))]).expect("valid");
        let got: Vec<(String, u16)> = config
            .hosts
            .iter()
            .map(|host| match &host.endpoint {
                Endpoint::Name(name) => (name.clone(), host.port),
                other => panic!("not a name: {other:?}"),
            })
            .collect();
        let expected: Vec<(String, u16)> = names.into_iter().zip(ports).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn what_is_not_given_has_libpq_s_defaults() {
    let config = config(&[]).expect("valid");
    assert_eq!(config.dbname, "ann");
    assert_eq!(config.application_name, "bmdb");
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(10)));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Any);
    assert_eq!(config.tls.mode, SslMode::Prefer);
    assert_eq!(
        (&config.hosts[0].endpoint, config.hosts[0].port),
        (&Endpoint::Default, 5432)
    );
    assert!(config.keepalives.enabled);
}

#[test]
fn off_this_machine_the_server_is_verified_unless_told_otherwise() {
    let mode = |pairs: &[(&str, &str)]| config(pairs).expect("valid").tls.mode;
    assert_eq!(mode(&[("host", "db.example")]), SslMode::VerifyFull);
    assert_eq!(
        mode(&[("host", "localhost,db.example")]),
        SslMode::VerifyFull
    );
    assert_eq!(
        mode(&[("host", "db.example"), ("sslmode", "")]),
        SslMode::VerifyFull
    );
    assert_eq!(
        mode(&[("host", "db.example"), ("sslmode", "prefer")]),
        SslMode::Prefer
    );
    assert_eq!(mode(&[("host", "127.0.0.1")]), SslMode::Prefer);
    assert_eq!(
        mode(&[("host", "db.example"), ("hostaddr", "::1")]),
        SslMode::Prefer
    );
}

#[test]
fn units_are_libpq_s() {
    let config = config(&[
        ("connect_timeout", "3"),
        ("tcp_user_timeout", "1500"),
        ("keepalives_idle", "7"),
        ("keepalives_count", "4"),
    ])
    .expect("valid");
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(config.tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.keepalives.idle, Some(Duration::from_secs(7)));
    assert_eq!(config.keepalives.count, Some(4));
}

#[test]
fn a_timeout_of_zero_means_none() {
    assert_eq!(
        config(&[("connect_timeout", "0")])
            .expect("valid")
            .connect_timeout,
        None
    );
}

#[test]
fn lists_that_do_not_pair_are_refused() {
    assert!(refusal(&[("host", "a,b"), ("hostaddr", "127.0.0.1")]).contains("hostaddr"));
    assert!(refusal(&[("host", "a,b"), ("port", "1,2,3")]).contains("port"));
    assert!(refusal(&[("port", "0")]).contains("port"));
}

#[test]
fn nothing_that_secures_a_connection_is_ignored() {
    for (keyword, value) in [
        ("sslcrl", "/file"),
        ("require_auth", "scram-sha-256"),
        ("requirepeer", "postgres"),
        ("gssencmode", "require"),
        ("min_protocol_version", "3.2"),
        ("sslcertmode", "require"),
        ("client_encoding", "LATIN1"),
        ("sslpassword", CANARY),
    ] {
        let message = refusal(&[(keyword, value)]);
        assert!(
            message.contains(keyword) && !message.contains(CANARY),
            "{message}"
        );
    }
    assert!(refusal(&[("sslrootcert", "system"), ("sslmode", "require")]).contains("verify-full"));
    assert!(refusal(&[("sslnegotiation", "direct")]).contains("sslmode"));
    assert_eq!(
        config(&[("sslrootcert", "system")])
            .expect("valid")
            .tls
            .mode,
        SslMode::VerifyFull
    );
}

#[test]
fn the_password_file_answers_for_each_host() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("bmdb-passfile-hosts-{}", std::process::id()));
    std::fs::write(&path, "db1:*:*:ann:one\ndb2:5433:*:ann:two\n").expect("writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("own file");
    let shown = path.to_str().expect("temporary paths are UTF-8");
    let config = config(&[
        ("host", "db1,db2,db3"),
        ("port", "5432,5433,5434"),
        ("passfile", shown),
    ]);
    std::fs::remove_file(&path).expect("own file");
    let passwords: Vec<Option<String>> = config
        .expect("valid")
        .hosts
        .iter()
        .map(|host| {
            host.password
                .as_ref()
                .map(|password| password.reveal().to_owned())
        })
        .collect();
    assert_eq!(
        passwords,
        [Some("one".to_owned()), Some("two".to_owned()), None]
    );
}
