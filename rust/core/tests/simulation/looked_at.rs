//! The model stands for statements of the core. Whoever changes one of them is to look whether the model still does.

use bmdb_core::queries::{self, Query};

/// The statements that are modelled, and what they were when the model was last held against them.
const LOOKED_AT: &[(&Query, u64)] = &[
    (&queries::SESSION_START, 0x12d7_0433_2122_41c8),
    (&queries::SESSION_RENEW, 0x31c9_b1ab_c880_ed8e),
    (&queries::SESSION_FENCE, 0xba01_5756_cc96_7704),
    (&queries::CLAIM_SCAN, 0x30cb_89e2_7b61_a231),
    (&queries::CLAIM_VERIFY, 0x9bba_7905_b80b_0ec8),
    (&queries::WORK_FINISH, 0xe76d_ac86_fced_5d1b),
    (&queries::WORK_FAIL, 0xdfea_ea8e_f7b6_6662),
    (&queries::WORK_CANCEL, 0x6d4a_991a_8e54_6b51),
    (&queries::WORK_RECORDED, 0xc85f_b10b_32ae_f5e2),
    (&queries::COLLECT_OUTLOOK, 0xc246_0327_fce7_1eab),
    (&queries::COLLECT_END_STALLED, 0x496f_0a82_ee46_e1e2),
    (&queries::COLLECT_LOCK_EXPIRED, 0xe609_b525_0204_3446),
    (&queries::COLLECT_BUSY, 0x3104_8038_0b77_76a9),
    (&queries::COLLECT_LOSE, 0x0785_717d_8e2b_4e78),
    (&queries::SERVER_TRANSACTION_STATUS, 0x42dd_bd6b_1322_b826),
    (&queries::SERVER_END_UNFINISHED, 0x6ef6_cba0_e6ed_9159),
];

/// FNV-1a, over the words of the statement without its comments.
fn digest(sql: &str) -> u64 {
    let words = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .flat_map(str::split_whitespace);
    words
        .flat_map(|word| word.bytes().chain([b' ']))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[test]
fn what_is_modelled_is_as_it_was() {
    let changed: Vec<String> = LOOKED_AT
        .iter()
        .filter(|(query, looked_at)| digest(query.sql) != *looked_at)
        .map(|(query, _)| format!("{}: {:#x}", query.name, digest(query.sql)))
        .collect();
    assert!(
        changed.is_empty(),
        "these statements have changed: look whether database.rs still does what they do, then write down their digests\n{}",
        changed.join("\n")
    );
}
