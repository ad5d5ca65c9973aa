//! Four times as many requests as the server can answer: those it answers are answered in time, and nothing piles up.

use anyhow::Result;

use super::server::{Cores, Server};
use super::{Bench, Finding, number};

const DEADLINE_MILLISECONDS: f64 = 1000.0;
/// Of the client's own timer, on a machine that is full.
const SLACK_MILLISECONDS: f64 = 100.0;
const MOST_GROWTH_MIB: f64 = 64.0;

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let server = Server::start(bench, "overload", Cores::First, &[])?;
    let workloads = ["--workloads", "1000", "--certified", "1"];
    println!("\nthe peak");
    let peak = server.load(
        bench,
        Cores::Second,
        &[&workloads, &["--in-flight", "64"][..]].concat(),
    )?;
    let peak = number(&peak, "/steady/issued_per_second")?;
    println!("\nfour times the peak");
    let rate = format!("{:.0}", peak * 4.0);
    let flags = ["--rate", &rate, "--deadline", "1s"];
    let over = server.load(bench, Cores::Second, &[&workloads, &flags[..]].concat())?;
    let goodput = number(&over, "/steady/issued_per_second")? * 100.0 / peak;
    let offered = number(&over, "/issued")? + number(&over, "/failed")?;
    let issued = number(&over, "/issued")? * 100.0 / offered;
    let longest = number(&over, "/latency/longest")?.max(number(&over, "/failed_latency/longest")?);
    let growth = (number(&over, "/server/memory_most_kib")?
        - number(&over, "/server/memory_before_kib")?)
        / 1024.0;
    Ok(vec![
        Finding {
            target: "4 × overload: certificates issued, as a share of the peak",
            asked: "> 80 %".to_owned(),
            measured: format!(
                "{goodput:.0} % of {peak:.0}/s, while the processor kept its pace, both; {issued:.0} % of what was asked"
            ),
            met: goodput > 80.0,
        },
        Finding {
            target: "4 × overload: longest wait with a deadline of 1 s",
            asked: "≤ 1 s".to_owned(),
            measured: format!("{longest:.0} ms"),
            met: longest <= DEADLINE_MILLISECONDS + SLACK_MILLISECONDS,
        },
        Finding {
            target: "4 × overload: growth of the server's memory",
            asked: "< 64 MiB".to_owned(),
            measured: format!("{growth:.1} MiB"),
            met: growth < MOST_GROWTH_MIB,
        },
    ])
}
