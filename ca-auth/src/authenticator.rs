//! The seam for ways to tell who is calling, and the order in which they are tried.

use std::error::Error;
use std::fmt;

use ca_core::BoxFuture;
use time::OffsetDateTime;

use crate::caller::Caller;
use crate::evidence::{Evidence, Transport};
use crate::key_source::KeyStatus;

/// One way to tell who is calling.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// What the log calls it.
    fn name(&self) -> &'static str;

    /// Judges the evidence as of `now`.
    ///
    /// May ask somebody else and so may wait. **Whoever calls sets the deadline.**
    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>>;

    /// What it goes by, for people. Cheap: nobody is asked.
    fn status(&self) -> AuthenticatorStatus {
        AuthenticatorStatus::new(self.name())
    }
}

/// What an authenticator goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticatorStatus {
    /// What the log calls it.
    pub name: &'static str,
    /// Whose tokens it judges, where it judges those of one issuer.
    pub issuer: Option<String>,
    /// The keys it verifies with, where it does.
    pub keys: Option<KeyStatus>,
}

impl AuthenticatorStatus {
    /// Of one that goes by nothing but the evidence.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            issuer: None,
            keys: None,
        }
    }
}

/// Why an authenticator does not vouch for a caller.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// The evidence has nothing this authenticator could judge.
    #[error("not presented")]
    NotPresented,
    /// What was presented is for somebody else to judge. For this authenticator it is as good as no evidence.
    #[error("does not apply: {0}")]
    AnotherIssuer(#[source] AnotherIssuer),
    /// What was presented is not good. The caller gains nothing by trying again.
    #[error("rejected: {0}")]
    Rejected(#[source] Reason),
    /// Somebody who must be asked did not answer. The caller should try again.
    #[error("could not ask: {0}")]
    CouldNotAsk(#[source] Reason),
}

/// A token of another issuer than that of an authenticator, whose keys say nothing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnotherIssuer {
    /// What the token says, shortened.
    pub found: Option<String>,
    /// Whose tokens are judged.
    pub expected: String,
}

impl fmt::Display for AnotherIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "the token is of issuer {found:?}")?,
            None => f.write_str("the token names no issuer")?,
        }
        write!(f, ", not of {:?}", self.expected)
    }
}

impl Error for AnotherIssuer {}

/// A sentence for the log. **Never holds a token.**
pub type Reason = Box<dyn Error + Send + Sync>;

/// The authenticators of a server in the order they are tried. The first that vouches wins.
#[derive(Debug)]
pub struct Authenticators {
    in_order: Vec<Box<dyn Authenticator>>,
    plaintext: Plaintext,
}

/// What to do with requests that travelled in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// Refuse them, whatever they show: a token on such a connection is no longer a secret.
    #[default]
    Refuse,
    /// Judge them as any other. For meshes where something else protects the connection.
    Judge,
}

impl Authenticators {
    /// Tries `in_order`; refuses requests that travelled in the clear.
    pub fn new(in_order: Vec<Box<dyn Authenticator>>) -> Self {
        Self {
            in_order,
            plaintext: Plaintext::default(),
        }
    }

    /// Changes what happens to requests that travelled in the clear.
    #[must_use]
    pub fn with_plaintext(mut self, plaintext: Plaintext) -> Self {
        self.plaintext = plaintext;
        self
    }

    /// Tells who is calling.
    ///
    /// # Errors
    /// When nobody vouches for the caller: with the reason each one gave.
    pub async fn authenticate(
        &self,
        evidence: &Evidence,
        now: OffsetDateTime,
    ) -> Result<Caller, Refusal> {
        let mut reasons = Vec::new();
        if let (Transport::Plaintext, Plaintext::Refuse) = (evidence.transport(), self.plaintext) {
            let reason = AuthnError::Rejected("the connection is not encrypted".into());
            reasons.push(("transport", reason));
            return Err(Refusal { reasons });
        }
        for authenticator in &self.in_order {
            match authenticator.authenticate(evidence, now).await {
                Ok(caller) => return Ok(caller),
                Err(reason) => reasons.push((authenticator.name(), reason)),
            }
        }
        Err(Refusal { reasons })
    }

    /// What each one goes by, in the order they are tried.
    pub fn status(&self) -> Vec<AuthenticatorStatus> {
        self.in_order.iter().map(|each| each.status()).collect()
    }
}

/// Nobody vouches for the caller. The display form is one line **for the log**; the wire is told
/// only whether trying again may help.
#[derive(Debug)]
pub struct Refusal {
    reasons: Vec<(&'static str, AuthnError)>,
}

impl Refusal {
    /// Whether somebody could not be asked, so that the same evidence may be good later.
    pub fn is_retryable(&self) -> bool {
        self.reasons
            .iter()
            .any(|(_, reason)| matches!(reason, AuthnError::CouldNotAsk(_)))
    }

    /// The name of each authenticator with its reason, in the order they were tried.
    pub fn reasons(&self) -> &[(&'static str, AuthnError)] {
        &self.reasons
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody vouches for the caller")?;
        if self.reasons.is_empty() {
            return f.write_str(": no authenticator is configured");
        }
        for (index, line) in self.lines().iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

impl Error for Refusal {}

impl Refusal {
    /// What is the same for several issuers is said once: that a token does not read, and that it is of none of them.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, reason) in &self.reasons {
            let line = match reason {
                AuthnError::AnotherIssuer(one) => self.not_of_these(name, one),
                reason => format!("{name} {reason}"),
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// All issuers that a token is not of, in place of `one`.
    fn not_of_these(&self, name: &str, one: &AnotherIssuer) -> String {
        let of_this_name = self.reasons.iter().filter(|(other, _)| *other == name);
        let (mut expected, mut is_of_none) = (Vec::new(), true);
        for (_, reason) in of_this_name {
            match reason {
                AuthnError::AnotherIssuer(another) => {
                    expected.push(format!("{:?}", another.expected));
                }
                _ => is_of_none = false,
            }
        }
        if expected.len() == 1 {
            return format!("{name} does not apply: {one}");
        }
        let expected = expected.join(", ");
        match &one.found {
            Some(found) if is_of_none => format!(
                "{name} does not apply: the token is of issuer {found:?}, which is none of those configured ({expected})"
            ),
            Some(found) => {
                format!(
                    "{name} does not apply: the token is of issuer {found:?}, not of {expected}"
                )
            }
            None => format!(
                "{name} does not apply: the token names no issuer, and those configured are {expected}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use ca_core::SpiffeId;

    use super::*;
    use crate::caller::{Identities, Source};

    /// Gives the answer it was made with.
    #[derive(Debug)]
    struct Scripted(&'static str, Answer);

    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Vouch,
        Absent,
        Bad,
        Unreachable,
        /// Of the first issuer, and not of the second.
        Another(Option<&'static str>, &'static str),
    }
    use Answer::{Absent, Another, Bad, Unreachable, Vouch};

    impl Authenticator for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }

        fn authenticate<'a>(
            &'a self,
            _evidence: &'a Evidence,
            now: OffsetDateTime,
        ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
            let answer = match self.1 {
                Vouch => {
                    let name: SpiffeId = format!("spiffe://td/ns/a/sa/{}", self.0).parse().unwrap();
                    let source = Source::Token { issuer: None };
                    Ok(Caller::new(self.0, source, Identities::from(name), now))
                }
                Absent => Err(AuthnError::NotPresented),
                Bad => Err(AuthnError::Rejected("it is forged".into())),
                Unreachable => Err(AuthnError::CouldNotAsk("no answer within 5s".into())),
                Another(found, expected) => Err(AuthnError::AnotherIssuer(AnotherIssuer {
                    found: found.map(str::to_owned),
                    expected: expected.into(),
                })),
            };
            Box::pin(async move { answer })
        }
    }

    async fn ask(answers: &[(&'static str, Answer)]) -> Result<Caller, Refusal> {
        let in_order = answers
            .iter()
            .map(|(name, answer)| Box::new(Scripted(name, *answer)) as Box<dyn Authenticator>)
            .collect();
        let evidence = Evidence::new(Transport::Tls { client_chain: None });
        Authenticators::new(in_order)
            .authenticate(&evidence, OffsetDateTime::UNIX_EPOCH)
            .await
    }

    #[tokio::test]
    async fn the_first_who_vouches_wins() {
        for (answers, winner) in [
            (&[("first", Vouch), ("second", Vouch)][..], "first"),
            (&[("first", Absent), ("second", Vouch)], "second"),
            (&[("first", Bad), ("second", Vouch)], "second"),
            (&[("first", Unreachable), ("second", Vouch)], "second"),
        ] {
            let caller = ask(answers).await.unwrap();
            assert_eq!(caller.authenticator, winner, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_every_reason_and_tells_whether_to_try_again() {
        for (answers, retryable, line) in [
            (
                &[][..],
                false,
                "nobody vouches for the caller: no authenticator is configured",
            ),
            (
                &[("a", Absent), ("b", Bad)],
                false,
                "nobody vouches for the caller: a not presented; b rejected: it is forged",
            ),
            (
                &[("a", Unreachable), ("b", Absent)],
                true,
                "nobody vouches for the caller: a could not ask: no answer within 5s; \
                 b not presented",
            ),
        ] {
            let refusal = ask(answers).await.unwrap_err();
            assert_eq!(refusal.is_retryable(), retryable, "{answers:?}");
            assert_eq!(refusal.to_string(), line);
            assert_eq!(refusal.reasons().len(), answers.len());
        }
    }

    #[tokio::test]
    async fn a_token_of_another_issuer_is_named_once_and_counts_as_no_evidence() {
        let (a, b) = (Another(Some("x"), "a"), Another(Some("x"), "b"));
        let nameless = [
            ("jwt", Another(None, "a")),
            ("jwt", Another(None, "b")),
            ("jwt", Bad),
        ];
        for (answers, line) in [
            (
                &[("jwt", a)][..],
                "jwt does not apply: the token is of issuer \"x\", not of \"a\"",
            ),
            (
                &[("tls", Absent), ("jwt", a), ("jwt", b)],
                "tls not presented; jwt does not apply: the token is of issuer \"x\", which is none of those \
                 configured (\"a\", \"b\")",
            ),
            (
                &[("jwt", a), ("jwt", Bad), ("jwt", b)],
                "jwt does not apply: the token is of issuer \"x\", not of \"a\", \"b\"; jwt rejected: it is forged",
            ),
            (
                &nameless,
                "jwt does not apply: the token names no issuer, and those configured are \"a\", \"b\"; \
                 jwt rejected: it is forged",
            ),
            (&[("jwt", Bad), ("jwt", Bad)], "jwt rejected: it is forged"),
        ] {
            let refusal = ask(answers).await.unwrap_err();
            assert_eq!(
                refusal.to_string(),
                format!("nobody vouches for the caller: {line}")
            );
            assert!(!refusal.is_retryable());
            assert_eq!(refusal.reasons().len(), answers.len());
        }
        assert!(ask(&[("jwt", a), ("jwt", Vouch)]).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_in_the_clear_is_refused_unless_that_was_asked_for() {
        let evidence = Evidence::new(Transport::Plaintext).with_authorization("Bearer good");
        let all = || Authenticators::new(vec![Box::new(Scripted("all", Vouch))]);
        let now = OffsetDateTime::UNIX_EPOCH;

        let refusal = all().authenticate(&evidence, now).await.unwrap_err();
        assert!(!refusal.is_retryable());
        assert!(refusal.to_string().contains("not encrypted"), "{refusal}");

        let judged = all().with_plaintext(Plaintext::Judge);
        assert!(judged.authenticate(&evidence, now).await.is_ok());
    }
}
