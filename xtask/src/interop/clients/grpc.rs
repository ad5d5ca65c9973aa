//! `CreateCertificate` called by Python gRPC.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::interop::proto_folder;
use crate::lab::Lab;
use crate::mesh::Ca;
use crate::venv::Venv;
use crate::workspace;

/// One call.
pub(super) struct Wish<'a> {
    csr: &'a str,
    token: Option<&'a str>,
    seconds: i64,
}

impl<'a> Wish<'a> {
    pub(super) fn new(csr: &'a str, token: Option<&'a str>) -> Self {
        Self {
            csr,
            token,
            seconds: 3600,
        }
    }

    pub(super) fn with_seconds(self, seconds: i64) -> Self {
        Self { seconds, ..self }
    }
}

pub(super) struct Answer {
    /// The name of a gRPC status code.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) chain: Vec<String>,
}

pub(super) struct Client<'a> {
    lab: &'a Lab,
    python: &'a Venv,
    address: String,
    root_certificate: PathBuf,
}

impl<'a> Client<'a> {
    pub(super) fn new(lab: &'a Lab, python: &'a Venv, ca: &Ca<'_>) -> Self {
        let root_certificate = ca.root_certificate.clone();
        Self {
            lab,
            python,
            address: ca.address.to_string(),
            root_certificate,
        }
    }

    /// The answers, in the order of the wishes.
    pub(super) fn call(&self, wishes: &[Wish<'_>]) -> Result<Vec<Answer>> {
        let calls: Vec<_> = wishes
            .iter()
            .map(|wish| json!({ "csr": wish.csr, "token": wish.token, "seconds": wish.seconds }))
            .collect();
        let file = self
            .lab
            .write("calls.json", Value::from(calls).to_string())?;
        let mut python = self.python.script("sign.py");
        python
            .arg(&self.address)
            .arg(&self.root_certificate)
            .arg(proto_folder());
        python.stdin(File::open(&file).context("cannot open the calls")?);
        let answers: Vec<Value> = serde_json::from_str(&workspace::output(&mut python)?)
            .context("sign.py printed no JSON")?;
        ensure!(
            answers.len() == wishes.len(),
            "sign.py left calls without an answer"
        );
        Ok(answers.iter().map(answer).collect())
    }
}

fn answer(value: &Value) -> Answer {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Answer {
        code: text(&value["code"]),
        message: text(&value["message"]),
        chain: value["chain"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect(),
    }
}
