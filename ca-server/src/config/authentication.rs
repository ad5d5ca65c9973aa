//! What is meant about who is believed: issuers, proxies, renewals, and the policy.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_auth::{
    AddressRange, AddressRangeError, Audiences, ClaimRule, DocumentUrl, HttpsClient,
    HttpsClientError, IdentityTemplate, IssuerKeys, IssuerKeysError, KeyPlace, KeySchedule,
    SubjectRule, TemplateError, TrustedProxies, UrlError,
};
use serde::Deserialize;
use toml::Spanned;

use crate::args::{AuthenticationArgs, clock_skew};

/// Who is believed.
#[derive(Debug)]
pub(crate) struct Authentication {
    /// `false`: nobody.
    pub(crate) enabled: bool,
    pub(crate) tokens: Tokens,
    pub(crate) schedule: KeySchedule,
    pub(crate) renewal_max_age: Option<Duration>,
    /// `None` where nobody's header is believed.
    pub(crate) proxies: Option<TrustedProxies>,
    pub(crate) policy: Option<PathBuf>,
}

/// Whose tokens are accepted.
#[derive(Debug)]
pub(crate) enum Tokens {
    /// Those of known issuers: at least one.
    Issuers(Vec<Issuer>),
    /// Those that `ca-server token` makes: nobody else was named.
    Local(Audiences),
}

/// One issuer and what its tokens must be.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) name: Option<String>,
    pub(crate) keys: Keys,
    pub(crate) audiences: Audiences,
    pub(crate) subject: SubjectRule,
    pub(crate) clock_skew: Duration,
}

/// Where its keys come from.
#[derive(Debug)]
pub(crate) enum Keys {
    File(PathBuf),
    /// With the file of roots that its server is verified with.
    Place(KeyPlace, PathBuf),
}

impl TryFrom<AuthenticationArgs> for Authentication {
    type Error = AuthenticationError;

    fn try_from(args: AuthenticationArgs) -> Result<Self, AuthenticationError> {
        let common = Audiences::new(args.token_audiences).ok_or(AuthenticationError::NoAudience);
        let common = common.map_err(|error| error.at("--token-audiences"))?;
        let context = Context {
            audiences: &common,
            clock_skew: args.token_clock_skew,
            ca_file: args.token_issuer_ca.as_deref(),
        };
        let mut issuers = Vec::new();
        // Istio's order: the rule, then the issuer.
        if let Some(json) = set(args.jwt_rule) {
            issuers.push(context.jwt_rule(&json)?);
        }
        let (name, keys) = (set(args.token_issuer), set(args.token_issuer_keys));
        if name.is_some() || keys.is_some() {
            let audiences = args.token_issuer_audiences;
            let audiences: Vec<_> = audiences.into_iter().filter_map(|a| set(Some(a))).collect();
            let place = match &name {
                Some(name) => format!("--token-issuer {}", DocumentUrl::without_userinfo(name)),
                None => "--token-issuer-keys".into(),
            };
            let issuer = context.issuer(IssuerTable {
                name,
                keys,
                audiences: Some(audiences).filter(|names| !names.is_empty()),
                ..IssuerTable::default()
            });
            issuers.push(issuer.map_err(|error| error.at(place))?);
        }
        if let Some(path) = &args.token_issuers {
            context.add_issuers_of(path, &mut issuers)?;
        }
        Ok(Self {
            enabled: args.xds_auth,
            tokens: if issuers.is_empty() {
                Tokens::Local(common)
            } else {
                Tokens::Issuers(issuers)
            },
            schedule: KeySchedule {
                refresh: args.token_keys_refresh,
                cooldown: args.token_keys_cooldown,
                max_age: args.token_keys_max_age,
            },
            renewal_max_age: args.renewal_max_age,
            proxies: trusted_proxies(&args.trusted_gateway_cidr)?,
            policy: args.policy,
        })
    }
}

/// Manifests set a variable to nothing where they mean that it is not set.
fn set(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn trusted_proxies(ranges: &[String]) -> Result<Option<TrustedProxies>, AddressRangeError> {
    let ranges = ranges.iter().map(|range| range.trim());
    let ranges = ranges.filter(|range| !range.is_empty()).map(str::parse);
    let ranges: Vec<AddressRange> = ranges.collect::<Result<_, _>>()?;
    Ok((!ranges.is_empty()).then(|| TrustedProxies::new(ranges)))
}

/// What holds where an issuer says nothing else.
struct Context<'a> {
    audiences: &'a Audiences,
    clock_skew: Duration,
    ca_file: Option<&'a Path>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuersFile {
    #[serde(default)]
    issuer: Vec<Spanned<IssuerTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IssuerTable {
    name: Option<String>,
    keys: Option<String>,
    audiences: Option<Vec<String>>,
    identity: Option<String>,
    #[serde(default)]
    require: BTreeMap<String, String>,
    clock_skew: Option<String>,
    ca_file: Option<PathBuf>,
}

/// The fields of Istio's rule that the CA of Istio reads. Others are passed over, as there.
#[derive(Deserialize)]
struct JwtRule {
    issuer: String,
    #[serde(alias = "jwksUri")]
    jwks_uri: Option<String>,
    audiences: Option<Vec<String>>,
}

impl Context<'_> {
    fn jwt_rule(&self, json: &str) -> Result<Issuer, AuthenticationError> {
        let rule: JwtRule = serde_json::from_str(json).map_err(AuthenticationError::JwtRule)?;
        let name = DocumentUrl::without_userinfo(&rule.issuer);
        let place = format!("--jwt-rule: issuer {name:?}");
        let issuer = self.issuer(IssuerTable {
            name: Some(rule.issuer),
            keys: rule.jwks_uri.filter(|uri| !uri.is_empty()),
            audiences: rule.audiences,
            ..IssuerTable::default()
        });
        issuer.map_err(|error| error.at(place))
    }

    /// Adds those of a file. None of them has the name of another: tokens would be judged by whoever comes first.
    fn add_issuers_of(
        &self,
        path: &Path,
        issuers: &mut Vec<Issuer>,
    ) -> Result<(), AuthenticationError> {
        let text = read_text(path).map_err(|error| error.at("--token-issuers"))?;
        let place = |start: usize| {
            let (line, column) = line_and_column(&text, start);
            format!("{}:{line}:{column}", path.display())
        };
        let file: IssuersFile = toml::from_str(&text).map_err(|error| {
            let start = error.span().unwrap_or_default().start;
            AuthenticationError::IssuersFile(error.message().to_owned()).at(place(start))
        })?;
        if file.issuer.is_empty() {
            return Err(AuthenticationError::NoIssuers.at(path.display()));
        }
        for table in file.issuer {
            let place = place(table.span().start);
            let table = table.into_inner();
            // Several issuers without a name would all be asked about each other's tokens.
            let Some(name) = &table.name else {
                return Err(AuthenticationError::NoName.at(place));
            };
            let shown = DocumentUrl::without_userinfo(name);
            let place = format!("{place}: issuer {shown:?}");
            if issuers
                .iter()
                .any(|issuer| issuer.name.as_ref() == Some(name))
            {
                return Err(AuthenticationError::SameName.at(place));
            }
            issuers.push(self.issuer(table).map_err(|error| error.at(place))?);
        }
        Ok(())
    }

    fn issuer(&self, table: IssuerTable) -> Result<Issuer, AuthenticationError> {
        let name = table.name;
        let roots = || roots_file(table.ca_file.as_deref().or(self.ca_file));
        let keys = match (table.keys, &name) {
            (Some(keys), _) if keys.contains("://") => {
                Keys::Place(KeyPlace::jwk_set(keys.parse::<DocumentUrl>()?), roots()?)
            }
            (Some(path), _) => {
                let path = PathBuf::from(path);
                // Read again by whoever follows it; here for the error before anything is made.
                if let Err(cause) = IssuerKeys::parse(&read(&path)?) {
                    return Err(AuthenticationError::IssuerKeys { path, cause });
                }
                Keys::File(path)
            }
            (None, Some(name)) => Keys::Place(KeyPlace::discovered(name)?, roots()?),
            (None, None) => return Err(AuthenticationError::NoKeys),
        };
        let audiences = match table.audiences {
            None => self.audiences.clone(),
            Some(names) => Audiences::new(names).ok_or(AuthenticationError::NoAudience)?,
        };
        let clock_skew = match table.clock_skew {
            None => self.clock_skew,
            Some(text) => clock_skew(&text).map_err(AuthenticationError::ClockSkew)?,
        };
        Ok(Issuer {
            name,
            keys,
            audiences,
            subject: subject_rule(table.identity, table.require)?,
            clock_skew,
        })
    }
}

fn subject_rule(
    identity: Option<String>,
    require: BTreeMap<String, String>,
) -> Result<SubjectRule, AuthenticationError> {
    let Some(identity) = identity else {
        if require.is_empty() {
            return Ok(SubjectRule::ServiceAccount);
        }
        return Err(AuthenticationError::RequireAlone);
    };
    let mut rule = ClaimRule::new(identity.parse::<IdentityTemplate>()?);
    for (claim, value) in require {
        rule = rule.requiring(claim.parse()?, value);
    }
    Ok(SubjectRule::Claims(rule))
}

/// Judged here, and read again by whoever follows it.
fn roots_file(ca_file: Option<&Path>) -> Result<PathBuf, AuthenticationError> {
    let path = match ca_file {
        Some(path) => path,
        None => {
            let mut known = SYSTEM_ROOTS.iter().map(Path::new);
            let found = known.find(|path| path.exists());
            found.ok_or(AuthenticationError::NoSystemRoots)?
        }
    };
    match HttpsClient::new(&read(path)?) {
        Ok(_) => Ok(path.into()),
        Err(cause) => Err(AuthenticationError::Roots {
            path: path.into(),
            cause,
        }),
    }
}

fn read_text(path: &Path) -> Result<String, AuthenticationError> {
    std::fs::read_to_string(path).map_err(|cause| AuthenticationError::Read {
        path: path.into(),
        cause,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, AuthenticationError> {
    std::fs::read(path).map_err(|cause| AuthenticationError::Read {
        path: path.into(),
        cause,
    })
}

/// Both from 1, the column in characters.
fn line_and_column(text: &str, start: usize) -> (usize, usize) {
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..].chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

impl AuthenticationError {
    /// With what it is about: a flag, or a place in a file, and whose.
    fn at(self, place: impl fmt::Display) -> Self {
        Self::At {
            place: place.to_string(),
            cause: Box::new(self),
        }
    }
}

/// What was typed about callers and cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// It is about one flag, or one issuer.
    #[error("{place}: {cause}")]
    At {
        /// Which.
        place: String,
        /// What is wrong there.
        cause: Box<Self>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// The keys of a token issuer do not read.
    #[error("token issuer keys {}: {cause}", path.display())]
    IssuerKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: IssuerKeysError,
    },
    /// An issuer or its keys are nowhere that can be asked.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Nothing to verify the server of an issuer with.
    #[error("no file with the root certificates of the system: name one with --token-issuer-ca")]
    NoSystemRoots,
    /// The file is not one of root certificates.
    #[error("{}: {cause}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: HttpsClientError,
    },
    /// Neither keys nor a name to find them by.
    #[error("a token issuer without keys and without a name")]
    NoKeys,
    /// Without an audience no token could ever be accepted.
    #[error("no token audience, or an empty one")]
    NoAudience,
    /// Not a rule.
    #[error("JWT rule: {0}")]
    JwtRule(#[source] serde_json::Error),
    /// Not a file of issuers.
    #[error("{}", DocumentUrl::without_userinfo(.0))]
    IssuersFile(String),
    /// A file of issuers without one.
    #[error("there is no [[issuer]] in it")]
    NoIssuers,
    /// An issuer among several that would take the tokens of all.
    #[error("an issuer without a name")]
    NoName,
    /// Two of one name: which of them is meant?
    #[error("another issuer has this name")]
    SameName,
    /// Claims that nothing is made of.
    #[error("require without identity: the claims of Kubernetes are judged as a whole")]
    RequireAlone,
    /// The template for identities.
    #[error("identity: {0}")]
    Template(#[from] TemplateError),
    /// The addresses of proxies.
    #[error("trusted gateways: {0}")]
    Proxies(#[from] AddressRangeError),
    /// The clock skew of an issuer.
    #[error("clock-skew: {0}")]
    ClockSkew(String),
}

/// Where distributions keep the roots that people trust.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn authentication(flags: &[&str]) -> Result<Authentication, String> {
        let args = Args::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        args.authentication
            .try_into()
            .map_err(|error: AuthenticationError| error.to_string())
    }

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn nothing_typed_means_local_tokens_and_nobodys_header() {
        let nothing = authentication(&[]).unwrap();
        assert!(matches!(nothing.tokens, Tokens::Local(_)));
        assert!(nothing.enabled && nothing.proxies.is_none() && nothing.policy.is_none());
        assert_eq!(nothing.schedule, KeySchedule::default());
        // What a manifest leaves empty is not set.
        let names = [
            "--token-issuer",
            "--token-issuer-audiences",
            "--jwt-rule",
            "--trusted-gateway-cidr",
        ];
        let empty = names.map(|name| [name, ""]).concat();
        let empty = authentication(&empty).unwrap();
        assert!(matches!(empty.tokens, Tokens::Local(_)) && empty.proxies.is_none());
        assert!(authentication(&["--trusted-gateway-cidr", "10.0.0.0/8, ::1"]).is_ok());
    }

    #[test]
    fn issuers_come_from_the_rule_the_flags_and_the_file_in_this_order() {
        let ca = ca_core::testing::TestCa::new("cluster.local").root_pem();
        let issuers = r#"
            [[issuer]]
            name = "https://ci.example"
            audiences = ["ca"]
            identity = "spiffe://{trust_domain}/ns/ci/sa/{claim:project}"
            require = { owner = "example" }
            clock-skew = "30s"
            [[issuer]]
            name = "legacy"
            keys = "FOLDER/keys.json"
        "#;
        let folder = folder_with(&[("ca.pem", &ca), ("keys.json", KEYS)]);
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let issuers = issuers.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(path("issuers.toml"), issuers).unwrap();
        let all = authentication(&[
            "--jwt-rule",
            r#"{"issuer":"https://rule.example","jwksUri":"https://rule.example/keys","fromHeaders":[]}"#,
            "--token-issuer",
            "https://kubernetes.default.svc",
            "--token-issuers",
            &path("issuers.toml"),
            "--token-issuer-ca",
            &path("ca.pem"),
            "--token-clock-skew",
            "5s",
        ])
        .unwrap();
        let Tokens::Issuers(all) = all.tokens else {
            panic!("local tokens");
        };
        let shown: Vec<_> = all
            .iter()
            .map(|issuer| {
                let keys = match &issuer.keys {
                    Keys::File(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
                    Keys::Place(place, _) => place.to_string(),
                };
                let skew = issuer.clock_skew.as_secs();
                (issuer.name.as_deref().unwrap_or_default(), keys, skew)
            })
            .collect();
        let discovered = |name: &str| format!("{name}/.well-known/openid-configuration");
        assert_eq!(
            shown,
            [
                (
                    "https://rule.example",
                    "https://rule.example/keys".into(),
                    5
                ),
                (
                    "https://kubernetes.default.svc",
                    discovered("https://kubernetes.default.svc"),
                    5
                ),
                ("https://ci.example", discovered("https://ci.example"), 30),
                ("legacy", "keys.json".into(), 5),
            ]
        );
        assert!(matches!(all[2].subject, SubjectRule::Claims(_)));
        assert_eq!(all[3].audiences, Audiences::default());
        assert_ne!(all[2].audiences, Audiences::default());
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_name() {
        let folder = folder_with(&[
            (
                "nameless.toml",
                "[[issuer]]\nkeys = \"https://a.example/keys\"",
            ),
            ("unknown.toml", "[[issuer]]\nname = \"a\"\nsecret = 1"),
            (
                "require.toml",
                "[[issuer]]\nname = \"a\"\nkeys = \"KEYS\"\nrequire = { a = \"b\" }",
            ),
            ("empty.toml", "# none yet\n"),
            ("nofile.toml", "[[issuer]]\nname = \"a\"\nkeys = \"nofile\""),
            (
                "identity.toml",
                "[[issuer]]\nname = \"a\"\nkeys = \"KEYS\"\nidentity = \"cart\"",
            ),
            (
                "nobody.toml",
                "[[issuer]]\nname = \"a\"\nkeys = \"KEYS\"\naudiences = []",
            ),
            (
                "twice.toml",
                "[[issuer]]\nname = \"a\"\nkeys = \"KEYS\"\n[[issuer]]\nname = \"a\"",
            ),
            ("keys.json", KEYS),
            ("junk.pem", "junk"),
        ]);
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["require.toml", "identity.toml", "nobody.toml", "twice.toml"] {
            let text = std::fs::read_to_string(path(name)).unwrap();
            let text = text.replace("KEYS", &path("keys.json"));
            std::fs::write(path(name), text).unwrap();
        }
        for (flags, reason) in [
            (
                ["--token-issuer", "kubernetes"],
                "--token-issuer kubernetes: URL \"kubernetes/.well-known",
            ),
            (
                ["--token-issuer-keys", "http://a.example/"],
                "--token-issuer-keys: URL \"http://a.example/\"",
            ),
            (
                ["--token-issuers", &path("nameless.toml")],
                "/nameless.toml:1:1: an issuer without a name",
            ),
            (
                ["--token-issuers", &path("unknown.toml")],
                "/unknown.toml:3:1: unknown field `secret`",
            ),
            (
                ["--token-issuers", &path("require.toml")],
                "/require.toml:1:1: issuer \"a\": require without identity",
            ),
            (["--token-issuers", &path("junk.pem")], "/junk.pem:1:"),
            (
                ["--token-issuers", &path("empty.toml")],
                "/empty.toml: there is no [[issuer]] in it",
            ),
            (
                ["--token-issuers", &path("nofile.toml")],
                "/nofile.toml:1:1: issuer \"a\": cannot read nofile: ",
            ),
            (
                ["--token-issuers", &path("identity.toml")],
                "/identity.toml:1:1: issuer \"a\": identity: an identity template starts with",
            ),
            (
                ["--token-issuers", &path("nobody.toml")],
                "/nobody.toml:1:1: issuer \"a\": no token audience",
            ),
            (
                ["--token-issuers", &path("twice.toml")],
                "/twice.toml:4:1: issuer \"a\": another issuer has this name",
            ),
            (
                ["--token-issuers", &path("missing.toml")],
                "--token-issuers: cannot read ",
            ),
            (
                ["--trusted-gateway-cidr", "gateway"],
                "trusted gateways: \"gateway\" is not a range",
            ),
            (["--jwt-rule", "{}"], "JWT rule: missing field `issuer`"),
            (
                ["--jwt-rule", r#"{"issuer":"a","audiences":"b"}"#],
                "JWT rule: invalid type",
            ),
            (
                ["--token-issuer-keys", &path("junk.pem")],
                "junk.pem: neither a JWK Set nor PEM",
            ),
        ] {
            let error = authentication(&flags).unwrap_err();
            assert!(error.contains(reason), "{flags:?}: {error}");
            assert!(!error.contains('\n'), "{flags:?}: {error}");
        }
        let ca = path("junk.pem");
        let flags = [
            "--token-issuer",
            "https://a.example",
            "--token-issuer-ca",
            &ca,
        ];
        let error = authentication(&flags).unwrap_err();
        assert!(
            error.ends_with("junk.pem: no certificate that can be a root (0 passed over)"),
            "{error}"
        );
    }
}
