//! What is done wrong on purpose, to see that the simulation sees it. None of these is in the core.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Trust lasts for the whole interval.
    MarginDropped,
    /// The session's row is looked at and not locked.
    CheckWithoutLock,
    /// Transactions begin without a look at the session.
    FenceDropped,
    /// Collection waits for what is locked.
    CollectWithoutSkipLocked,
    /// An end does not count what it deleted.
    FinishWithoutCount,
    /// A claim is not judged again on a fresh snapshot.
    ClaimWithoutVerify,
    /// A claim does not lock its session.
    ClaimWithoutSession,
    /// A COMMIT without an answer is reported as a failure.
    LostCommitFailed,
    /// A COMMIT without an answer is reported as done.
    LostCommitDone,
    /// What is in progress when the outcome is asked for is taken for aborted.
    SettleImpatient,
    /// The check of trust before COMMIT, and every other, is left out.
    TrustIgnored,
    /// The token stays as it is.
    TokenKept,
    /// A collection that is stopped in its transaction keeps what it has locked.
    CollectorMayIdle,
}

pub const ALL: [Mutant; 13] = [
    Mutant::MarginDropped,
    Mutant::CheckWithoutLock,
    Mutant::FenceDropped,
    Mutant::CollectWithoutSkipLocked,
    Mutant::FinishWithoutCount,
    Mutant::ClaimWithoutVerify,
    Mutant::ClaimWithoutSession,
    Mutant::LostCommitFailed,
    Mutant::LostCommitDone,
    Mutant::SettleImpatient,
    Mutant::TrustIgnored,
    Mutant::TokenKept,
    Mutant::CollectorMayIdle,
];
