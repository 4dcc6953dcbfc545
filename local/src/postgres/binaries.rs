//! Where the Postgres programs are on this machine, and as whom they may run. It fetches nothing:
//! that is `scripts/get-postgres`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Folders that hold one folder per version.
const VERSION_FOLDERS: [&str; 5] = [
    "/usr/lib/postgresql",
    "/usr/pgsql",
    "/opt/homebrew/opt",
    "/usr/local/opt",
    "/Applications/Postgres.app/Contents/Versions",
];

/// The folder with `initdb` and `postgres`, links resolved.
///
/// The order: `PG_BIN_DIR` (which must then be right), `initdb` on `PATH`, the usual folders with
/// the newest version first, and what `scripts/get-postgres` put into the folder of tools.
pub(super) fn find(tools: Option<&Path>) -> Result<PathBuf> {
    if let Some(told) = env::var_os("PG_BIN_DIR") {
        return usable(Path::new(&told)).with_context(|| {
            format!("PG_BIN_DIR is {}, but initdb and postgres are not there", Path::new(&told).display())
        });
    }
    let path = env::var_os("PATH").unwrap_or_default();
    on_path(&path)
        .chain(VERSION_FOLDERS.iter().flat_map(|folder| newest_first(Path::new(folder))))
        .chain(tool_folders(tools))
        .find_map(|folder| usable(&folder))
        .with_context(how_to_get_it)
}

/// `initdb` on `PATH` may be a link into the version's own folder, where `postgres` is beside it.
fn on_path(path: &OsString) -> impl Iterator<Item = PathBuf> {
    env::split_paths(path)
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| Some(initdb.parent()?.to_path_buf()))
}

fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| std::cmp::Reverse(version_of(path)));
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// `17`, `9.6` and `postgresql@17` as numbers, so that 9.6 is older than 17.
fn version_of(path: &Path) -> Vec<u32> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Told by the caller, told by `SQS_ETL_TOOLS`, or `.tools` at the root of the source tree.
fn tool_folders(told: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    let source_tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join(".tools"));
    [told.map(Path::to_path_buf), env::var_os("SQS_ETL_TOOLS").map(PathBuf::from), source_tree]
        .into_iter()
        .flatten()
        .map(|tools| tools.join("postgres/bin"))
}

fn usable(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    (folder.join("initdb").is_file() && folder.join("postgres").is_file()).then_some(folder)
}

fn how_to_get_it() -> String {
    let package = if cfg!(target_os = "macos") {
        "`brew install postgresql@17`"
    } else {
        "`sudo apt-get install --no-install-recommends postgresql`"
    };
    format!(
        "no Postgres server on this machine: run `scripts/get-postgres`, or {package}, \
         or set PG_BIN_DIR to the folder that holds initdb and postgres"
    )
}

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Postgres refuses to run as root. For root this is the account to run it as: `postgres`, else
/// `nobody`. For anybody else it is `None`.
pub(super) fn account() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    match ["postgres", "nobody"].iter().find_map(|name| account_named(name, &accounts)) {
        Some(account) => Ok(Some(account)),
        None => bail!(
            "Postgres refuses to run as root, and there is no user `postgres` or `nobody`: \
             create one, or run as an ordinary user"
        ),
    }
}

fn account_named(name: &str, accounts: &str) -> Option<Account> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    Some(Account { user: numbers.next()?.ok()?, group: numbers.next()?.ok()? })
}

/// The programs as `account` can run them: where they are or, behind a folder closed to it (a home
/// of root, say), a copy below `scratch`. Postgres finds its libraries and data relative to itself.
pub(super) fn reachable(bin: PathBuf, account: Option<Account>, scratch: &Path) -> Result<PathBuf> {
    let Some(account) = account else {
        return Ok(bin);
    };
    if may_reach(&bin, account) {
        return Ok(bin);
    }
    let install = bin.parent().context("the Postgres programs lie at the root of the disk")?;
    let copy = scratch.join("postgres");
    let copied = Command::new("cp").arg("-R").arg(install).arg(&copy).status().context("run cp")?;
    if !copied.success() {
        bail!("copy {} to {}: cp failed", install.display(), copy.display());
    }
    Ok(copy.join("bin"))
}

/// Whether `account` may enter `folder`, by the permission bits alone.
pub(super) fn may_reach(folder: &Path, account: Account) -> bool {
    folder.ancestors().all(|folder| may_enter(folder, account))
}

fn may_enter(folder: &Path, account: Account) -> bool {
    let Ok(folder) = fs::metadata(folder) else {
        return false;
    };
    let bit = if folder.uid() == account.user {
        0o100
    } else if folder.gid() == account.group {
        0o010
    } else {
        0o001
    };
    folder.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_comes_before_an_older_one_by_number_not_by_letter() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["9.6", "17", "postgresql@16", "latest"] {
            fs::create_dir(folder.path().join(version)).unwrap();
        }
        let found: Vec<_> = newest_first(folder.path())
            .iter()
            .map(|bin| bin.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, ["17", "postgresql@16", "9.6", "latest"]);
    }

    #[test]
    fn an_account_is_read_from_the_password_file() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(account_named("nobody", accounts), Some(Account { user: 65534, group: 65533 }));
        assert_eq!(account_named("postgres", accounts), None);
    }

    #[test]
    fn the_advice_names_the_script() {
        assert!(how_to_get_it().contains("scripts/get-postgres"));
    }
}
