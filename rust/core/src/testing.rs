//! The statements of the testing kit, by name. Users' tests run them, the library never does; PostgreSQL only.

/// Declares the list of the files under `testing/`.
macro_rules! statements {
    ($($name:literal,)*) => {
        /// All of them: (name, text). Words in braces stand for identifiers.
        pub static STATEMENTS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../testing/", $name, ".sql")))),*];
    };
}

statements! {
    "close_template",
    "conflict",
    "create_database",
    "create_template",
    "drop_database",
    "end_backoffs",
    "end_connections",
    "expire_session",
    "lost_leases",
    "templates",
    "watch_tables",
    "watch_writes",
    "zombie_writes",
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::STATEMENTS;

    #[test]
    fn every_file_is_listed_in_order() {
        let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("testing"))
            .unwrap()
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        files.sort();
        let listed: Vec<_> = STATEMENTS.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, files);
    }
}
