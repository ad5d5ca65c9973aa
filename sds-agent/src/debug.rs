//! The page that says what the agent has, who has got it, and what is wrong.

use std::fmt::Write as _;

use time::OffsetDateTime;

use crate::{
    clock,
    sds::{Roll, Verdict},
    secrets::Secrets,
};

/// Everything but the secrets themselves, for people.
///
/// # Errors
///
/// Never in practice: writing to a `String` does not fail.
pub(crate) fn page(
    secrets: &Secrets,
    roll: &Roll,
    now: OffsetDateTime,
) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    let never = || "never".to_owned();
    let progress = secrets.progress();
    let last = progress.last_success.map_or_else(never, clock::show);
    writeln!(page, "last success       {last}")?;
    let next = progress.next_attempt.map_or_else(never, clock::show);
    writeln!(page, "next attempt       {next}")?;
    if let Some(error) = &progress.last_error {
        writeln!(page, "last error         {error}")?;
    }
    if let Some(workload) = secrets.workload_at(now) {
        writeln!(page, "serial             {}", workload.secret.serial())?;
    }

    writeln!(page, "\nsecrets")?;
    for (name, secret) in secrets.shelf().iter() {
        write!(page, "  {name}  version {}", secret.version())?;
        match secret.not_after() {
            Some(end) if end <= now => write!(page, "  EXPIRED {}", clock::show(end))?,
            Some(end) => write!(page, "  until {}", clock::show(end))?,
            None => {}
        }
        writeln!(page)?;
    }
    for (name, reason) in secrets.troubles() {
        writeln!(page, "  {name}  REFUSED {reason}")?;
    }

    #[cfg(feature = "gateway")]
    if let Some(credentials) = secrets.credentials() {
        writeln!(page, "\ngateway")?;
        for standing in credentials.standings() {
            write!(page, "  namespace {}  ", standing.namespace)?;
            match standing.secrets {
                Some(count) => write!(page, "{count} secrets")?,
                None => write!(page, "not listed yet")?,
            }
            match standing.trouble {
                Some(reason) => writeln!(page, "  FAILED {reason}")?,
                None => writeln!(page)?,
            }
        }
    }

    let records = roll.records();
    writeln!(page, "\nstreams ({})", records.len())?;
    for (number, record) in records {
        let (protocol, opened) = (record.protocol, clock::show(record.opened));
        writeln!(
            page,
            "  {number}  {:?}  {protocol}  since {opened}",
            record.node
        )?;
        for wish in record.secrets {
            let name = wish.name;
            match (wish.sent, wish.verdict) {
                (None, _) => writeln!(page, "    {name}  waits")?,
                (Some(version), Verdict::Open) => writeln!(page, "    {name}  sent {version}")?,
                (Some(version), Verdict::Accepted) => writeln!(page, "    {name}  has {version}")?,
                (Some(version), Verdict::Refused(reason)) => {
                    writeln!(page, "    {name}  REFUSED {version}: {reason:?}")?;
                }
            }
        }
    }
    Ok(page)
}
