//! Servers that answered and are not to be used.

use super::stream::Target;

/// Addresses to pass over in one search, each with its reason.
#[derive(Debug, Default)]
pub struct PassedOver(Vec<(Target, String)>);

impl PassedOver {
    /// Passes over this one too.
    pub fn add(&mut self, target: Target, reason: String) {
        self.0.push((target, reason));
    }

    /// Why this one is passed over, if it is.
    #[must_use]
    pub fn reason(&self, target: &Target) -> Option<&str> {
        let found = self.0.iter().find(|(passed, _)| passed == target);
        found.map(|(_, reason)| reason.as_str())
    }
}
