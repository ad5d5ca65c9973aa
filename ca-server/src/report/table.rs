//! A report for a person at a terminal.

use std::fmt;

use super::{
    AuthenticatorReport, CaReport, CertificateReport, ClusterCallersReport, ClusterReport, Failure,
    FilesReport, Report, RequestsReport,
};
use crate::refusals::Refused;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.readiness.ready {
            "ready"
        } else {
            "not ready"
        };
        writeln!(f, "ca-server {}: {verdict}", self.version)?;
        for missing in &self.readiness.missing {
            line(f, "missing", missing)?;
        }
        for note in &self.readiness.notes {
            line(f, "note", note)?;
        }
        line(f, "trust domain", &self.trust_domain)?;
        line(f, "started", &self.started)?;
        if let Some(waiting) = &self.waiting {
            line(f, "waiting for", &waiting.wanted)?;
            line(f, "since", &waiting.since)?;
            // Nothing else is known.
            return match &waiting.last_failure {
                Some(failure) => line(f, "LAST FAILURE", &failure.to_string()),
                None => Ok(()),
            };
        }
        self.ca.fmt(f)?;
        self.cluster.as_ref().map_or(Ok(()), |each| each.fmt(f))?;
        for serving in &self.serving_certificates {
            writeln!(f, "\nserving certificate of {}", serving.name)?;
            line(f, "provider", &serving.provider)?;
            if let Some(shown) = &serving.certificate {
                line(f, "names", &serving.names.join(", "))?;
                certificate(f, "", shown)?;
            }
            optional(f, "renewal", serving.renewal.as_deref())?;
            optional(f, "LAST FAILURE", serving.last_failure.as_deref())?;
        }
        writeln!(f, "\ncallers")?;
        for authenticator in &self.authenticators {
            authenticator.fmt(f)?;
        }
        for cluster in &self.caller_clusters {
            cluster.fmt(f)?;
        }
        for remote in &self.remote_clusters {
            line(
                f,
                "remote cluster",
                &format!("{} of Secret {}", remote.id, remote.secret),
            )?;
            optional(f, "NOT TAKEN NOW", remote.last_error.as_deref())?;
        }
        if let Some(policy) = &self.policy {
            let (allow, deny, limit) = (policy.allow, policy.deny, policy.limit);
            let authorities = policy.certificate_authority;
            let rules = format!(
                "{allow} allow, {deny} deny, {limit} limit, {authorities} certificate-authority"
            );
            line(f, "policy", &rules)?;
            files(f, &policy.file)?;
        }
        self.requests.fmt(f)?;
        if let Some(audit) = &self.audit {
            let failures = audit.failures;
            let required = if audit.required { ", required" } else { "" };
            let text = format!("{}{required}, {failures} not written", audit.path);
            line(f, "audit log", &text)?;
            if let Some(failure) = &audit.last_failure {
                line(
                    f,
                    "LAST FAILURE",
                    &format!("{} {}", failure.time, failure.reason),
                )?;
            }
        }
        if !self.refusals.is_empty() {
            writeln!(f, "\nlast refusals")?;
        }
        self.refusals.iter().try_for_each(|refused| refused.fmt(f))
    }
}

impl fmt::Display for CaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nCA, {}", self.kind)?;
        if let Some(generation) = self.generation {
            line(f, "bundle", &generation.to_string())?;
        }
        if let Some(signing) = &self.signing_certificate {
            certificate(f, "signs", signing)?;
        }
        if let Some(registration) = &self.registration {
            line(f, "signer", &registration.signer)?;
            optional(f, "issuer", registration.issuer.as_deref())?;
            if let Some(count) = registration.under_way {
                line(f, "under way", &count.to_string())?;
            }
            if let Some(failure) = &registration.last_failure {
                let text = format!("{} {}", failure.time, failure.reason);
                line(f, "LAST FAILURE", &text)?;
            }
        }
        if let Some(upstream) = &self.upstream {
            line(f, "certified by", &upstream.certified_by)?;
            optional(f, "renewal", upstream.renewal.as_deref())?;
            optional(f, "waiting for", upstream.awaited.as_deref())?;
            if let Some(failure) = &upstream.last_failure {
                line(f, "LAST FAILURE", &failure.to_string())?;
            }
        }
        for each in &self.chain {
            certificate(f, "chain", each)?;
        }
        for root in &self.roots {
            certificate(f, &format!("root {}", root.role), &root.certificate)?;
        }
        if let Some(rotation) = &self.rotation {
            let since = rotation.since.as_ref();
            let since = since.map_or(String::new(), |since| format!(" since {since}"));
            let next = rotation.next.as_ref().map_or_else(
                || "nothing by itself".into(),
                |next| format!("{} from {}", next.step, next.at),
            );
            line(f, "rotation", &format!("{}{since}", rotation.stage))?;
            line(f, "next step", &next)?;
        }
        self.files.as_ref().map_or(Ok(()), |each| files(f, each))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.reason)
    }
}

impl fmt::Display for ClusterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ncluster")?;
        let holder = self.lease.holder.as_deref().unwrap_or("nobody");
        let leads = if self.lease.leads { ": this one" } else { "" };
        let lease = format!("{}, held by {holder}{leads}", self.lease.name);
        line(f, "lease", &lease)?;
        optional(f, "LAST ERROR", self.lease.last_error.as_deref())?;
        for each in &self.published {
            let text = format!(
                "{} wanted, {} outdated, {} written, {} removed, {} failures",
                each.wanted, each.outdated, each.written, each.removed, each.failures
            );
            line(f, &each.kind, &text)?;
        }
        let Some(failure) = &self.last_failure else {
            return Ok(());
        };
        let text = format!("{} {}", failure.time, failure.reason);
        line(f, "last failure", &text)
    }
}

impl fmt::Display for AuthenticatorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = self.issuer.as_ref();
        let issuer = issuer.map_or(String::new(), |issuer| format!(" of {issuer}"));
        let Some(keys) = &self.keys else {
            return line(f, "believed", &format!("{}{issuer}", self.name));
        };
        let count = keys.fingerprints.len();
        let source = keys.source.as_ref();
        let source = source.map_or(String::new(), |source| format!(" from {source}"));
        let age = keys.age_seconds;
        let age = age.map_or(String::new(), |age| format!(", {age} s old"));
        let keys_are = if count == 1 { "key" } else { "keys" };
        let text = format!("{}{issuer}: {count} {keys_are}{source}{age}", self.name);
        line(f, "believed", &text)?;
        optional(f, "LAST ERROR", keys.last_error.as_deref())
    }
}

impl fmt::Display for ClusterCallersReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reviews = self.reviews;
        let known = self.index.as_ref().map_or_else(
            || "nothing is watched".to_owned(),
            |index| match index.age_seconds {
                None => "its pods are not known yet".to_owned(),
                Some(age) => format!(
                    "{} pods, {} service accounts, heard of {age} s ago",
                    index.pods, index.service_accounts
                ),
            },
        );
        line(f, "cluster", &format!("{}: {known}", self.id))?;
        let (asked, failed) = (reviews.asked, reviews.failed);
        line(
            f,
            "",
            &format!("{asked} token reviews, {failed} without an answer"),
        )?;
        let failure = self
            .index
            .as_ref()
            .and_then(|index| index.last_error.as_deref());
        optional(f, "LAST ERROR", failure)
    }
}

impl fmt::Display for RequestsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nrequests")?;
        for (label, count) in [
            ("received", self.received),
            ("issued", self.issued),
            ("refused", self.refused),
            ("waiting", self.waiting),
            ("turned away", self.turned_away),
            ("… by address", self.turned_away_by_address),
        ] {
            line(f, label, &count.to_string())?;
        }
        Ok(())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer.as_deref().unwrap_or("unknown peer");
        let caller = self.caller.join(", ");
        line(f, &self.time, format!("{peer}  {caller}").trim_end())?;
        line(f, "", &self.reason)
    }
}

fn certificate(f: &mut fmt::Formatter<'_>, label: &str, is: &CertificateReport) -> fmt::Result {
    let first = format!("{}, until {}, serial {}", is.key, is.not_after, is.serial);
    line(f, label, &first)?;
    line(f, "", &format!("SHA-256 {}", is.fingerprint_sha256))
}

fn files(f: &mut fmt::Formatter<'_>, files: &FilesReport) -> fmt::Result {
    let loaded = files.loaded.as_deref().unwrap_or("at the start");
    let (loads, refusals) = (times(files.loads), times(files.refusals));
    line(f, "files", &files.path)?;
    let counts = format!("{loaded}; taken {loads}, refused {refusals}");
    line(f, "last taken", &counts)?;
    let Some(refusal) = &files.last_refusal else {
        return Ok(());
    };
    let label = if files.is_refused {
        "NOT TAKEN NOW"
    } else {
        "last refused"
    };
    line(f, label, &format!("{} {}", refusal.time, refusal.reason))
}

fn times(count: u64) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        more => format!("{more} times"),
    }
}

fn optional(f: &mut fmt::Formatter<'_>, label: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| line(f, label, value))
}

/// Control characters would let a caller write on the terminal of whoever looks.
fn line(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    let value: String = value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    writeln!(f, "  {label:<20}  {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let report = |keys: &[&str], loads| {
            let authenticator = AuthenticatorReport {
                name: "jwt".into(),
                issuer: None,
                keys: Some(super::super::KeysReport {
                    source: None,
                    age_seconds: None,
                    fingerprints: keys.iter().map(|&key| key.into()).collect(),
                    last_error: None,
                }),
            };
            format!("{authenticator}{}", times(loads))
        };
        assert!(report(&["a"], 1).ends_with("jwt: 1 key\nonce"));
        assert!(report(&["a", "b"], 2).ends_with("jwt: 2 keys\n2 times"));
        assert!(report(&[], 0).ends_with("jwt: 0 keys\nnever"));
    }
}
