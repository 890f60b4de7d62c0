//! The password file: lines of host:port:database:user:password, where `*` matches anything and a backslash
//! escapes a colon or a backslash.

use super::Secret;

/// The file's text, unless it cannot be read or others than its owner may read it.
pub(super) fn read(path: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// The password of the first line that matches host, port, database and user.
pub(super) fn find(text: &str, wanted: [&str; 4]) -> Option<Secret> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut rest = line.strip_suffix('\r').unwrap_or(line);
            for value in wanted {
                let (field, after) = field(rest)?;
                if rest.starts_with("*:") || field == value {
                    rest = after;
                } else {
                    return None;
                }
            }
            // The password runs to the end of the line or to the next unescaped colon.
            let password = field(rest).map_or_else(|| unescape(rest), |(password, _)| password);
            Some(Secret::new(password))
        })
}

/// The text up to the next unescaped colon, unescaped, and what follows the colon.
fn field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b':' if !escaped => return Some((unescape(&text[..index]), &text[index + 1..])),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            character
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\ndb1:5432:fleet:ann:first\ndb2:*:*:ann:se\\:co\\\\nd\r\nfe80\\:\\:1:5432:*:*:third\n*:*:other:*:last:ignored\n";

    fn password(wanted: [&str; 4]) -> Option<String> {
        find(FILE, wanted).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        assert_eq!(
            password(["db1", "5432", "fleet", "ann"]).as_deref(),
            Some("first")
        );
        assert_eq!(password(["db1", "5433", "fleet", "ann"]), None);
        assert_eq!(
            password(["db9", "1", "other", "bob"]).as_deref(),
            Some("last")
        );
    }

    #[test]
    fn backslashes_escape_colons_and_backslashes() {
        assert_eq!(
            password(["db2", "1", "x", "ann"]).as_deref(),
            Some("se:co\\nd")
        );
        assert_eq!(
            password(["fe80::1", "5432", "x", "y"]).as_deref(),
            Some("third")
        );
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("bmdb-passfile-{}", std::process::id()));
        let shown = path.to_str().expect("temporary paths are UTF-8");
        std::fs::write(&path, FILE).expect("writable");
        for (mode, read_back) in [(0o600, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .expect("own file");
            assert_eq!(read(shown).is_some(), read_back, "mode {mode:o}");
        }
        std::fs::remove_file(&path).expect("own file");
    }
}
