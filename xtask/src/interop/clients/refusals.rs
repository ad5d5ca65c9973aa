//! What must be refused, with the exact status a client will see.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Result, bail};

use super::CALLER;
use super::grpc::{Answer, Client, Wish};
use crate::interop::openssl::{self, KeyKind, Subject};
use crate::lab::Lab;
use crate::mesh::Ca;
use crate::wait;

/// The maximum without configuration: 90 days.
const MAX_SECONDS: i64 = 90 * 24 * 60 * 60;

/// Told to everyone who is not known, whatever the reason: an attacker learns nothing from it.
const UNKNOWN_CALLER: Status = Status {
    code: "UNAUTHENTICATED",
    message: "request authenticate failure",
};

const NOT_ENCODED: Status = Status {
    code: "INVALID_ARGUMENT",
    message: "CSR signing error (certificate signing request is not properly encoded)",
};

const NOT_PARSEABLE: Status = Status {
    code: "INVALID_ARGUMENT",
    message: "CSR signing error (failed to parse X.509 certificate signing request)",
};

/// What is in the brackets is the cryptographic library's own text.
const BAD_SIGNATURE: Status = Status {
    code: "INVALID_ARGUMENT",
    message: "CSR signing error (*)",
};

const TOO_LONG: Status = Status {
    code: "INVALID_ARGUMENT",
    message: "CSR signing error (requested TTL 2160h0m1s is greater than the max allowed TTL 2160h0m0s)",
};

struct Status {
    code: &'static str,
    /// One `*` stands for any text that is not empty.
    message: &'static str,
}

pub(super) fn check(lab: &Lab, ca: &Ca<'_>, client: &Client<'_>) -> Result<()> {
    let request = openssl::greedy_request(lab, KeyKind::P256, Subject::Empty)?;
    let good = request.pem.as_str();
    let not_a_request = openssl::request_pem(lab, b"not a request")?;
    let mut broken = request.der.clone();
    if let Some(last) = broken.last_mut() {
        // The last byte belongs to the signature's second number, so the encoding stays sound.
        *last ^= 1;
    }
    let broken = openssl::request_pem(lab, &broken)?;
    let token = ca.token(CALLER, &[])?;
    let wrong_audience = ca.token(CALLER, &["--audience", "somebody-else"])?;
    let forged = forge(&token);

    let cases = [
        ("no token", Wish::new(good, None), UNKNOWN_CALLER),
        (
            "a token that is none",
            Wish::new(good, Some("garbage")),
            UNKNOWN_CALLER,
        ),
        (
            "a token with a broken signature",
            Wish::new(good, Some(&forged)),
            UNKNOWN_CALLER,
        ),
        (
            "a token for somebody else",
            Wish::new(good, Some(&wrong_audience)),
            UNKNOWN_CALLER,
        ),
        (
            "a request that is not PEM",
            Wish::new("garbage", Some(&token)),
            NOT_ENCODED,
        ),
        ("an empty request", Wish::new("", Some(&token)), NOT_ENCODED),
        (
            "a PEM block without a request",
            Wish::new(&not_a_request, Some(&token)),
            NOT_PARSEABLE,
        ),
        (
            "a request with a broken signature",
            Wish::new(&broken, Some(&token)),
            BAD_SIGNATURE,
        ),
        (
            "one second over the maximum",
            Wish::new(good, Some(&token)).with_seconds(MAX_SECONDS + 1),
            TOO_LONG,
        ),
    ];
    let (names, rest): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(name, wish, status)| (name, (wish, status)))
        .unzip();
    let (wishes, expected): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
    let answers = client.call(&wishes)?;
    for ((name, status), answer) in names.iter().zip(&expected).zip(&answers) {
        status.check(name, answer)?;
    }
    expired_token(ca, client, good)
}

/// A token may be accepted for a short while past its end, because clocks differ.
fn expired_token(ca: &Ca<'_>, client: &Client<'_>, csr: &str) -> Result<()> {
    let token = ca.token(CALLER, &["--ttl", "1s"])?;
    let answer = wait::until("end of an expired token", Duration::from_secs(90), || {
        let answer = client.call(&[Wish::new(csr, Some(&token))])?.remove(0);
        Ok(if answer.code == "OK" {
            ControlFlow::Continue("it is still accepted".to_owned())
        } else {
            ControlFlow::Break(answer)
        })
    })?;
    UNKNOWN_CALLER.check("an expired token", &answer)
}

/// The same claims under a signature that differs in its first character.
fn forge(token: &str) -> String {
    let (claims, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let rest: String = signature.chars().skip(1).collect();
    format!("{claims}.{first}{rest}")
}

impl Status {
    fn check(&self, name: &str, answer: &Answer) -> Result<()> {
        if answer.code != self.code || !self.matches(&answer.message) {
            bail!(
                "{name}: expected {} {:?}, got {} {:?}",
                self.code,
                self.message,
                answer.code,
                answer.message
            );
        }
        println!("  {name:<34} {} {:?}", answer.code, answer.message);
        Ok(())
    }

    fn matches(&self, message: &str) -> bool {
        match self.message.split_once('*') {
            None => message == self.message,
            Some((before, after)) => message
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|middle| !middle.is_empty()),
        }
    }
}
