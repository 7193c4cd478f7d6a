//! An nginx in front of an application, with default settings and the directives of a test.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Maximum time for nginx to start: 30 s, for a busy machine.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running nginx. Dropping the value ends it and removes its folder.
pub struct Nginx {
    pub url: String,
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx at this address, with these directives in its `server` block.
    pub fn start(address: &str, server: &str) -> Self {
        Self::with(address, "", server)
    }

    /// Starts nginx with further directives in its `http` block. `FOLDER` in them stands for a
    /// private folder.
    pub fn with(address: &str, outside: &str, server: &str) -> Self {
        let folder = std::env::temp_dir().join(format!(
            "tower-wechat-nginx-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let here = folder.display();
        let outside = outside.replace("FOLDER", &here.to_string());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {here}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{}}\nhttp {{\n  access_log off;\n{temporary}{outside}  server {{\n    listen {address};\n\
             {server}\n  }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(&file)
            .env("PATH", path_with_sbin())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need nginx: `apt-get install nginx` installs it");
        let give_up = Instant::now() + START_WITHIN;
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > give_up {
                let said = std::fs::read_to_string(folder.join("error.log"));
                panic!("nginx does not start: {ended:?} {said:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            url: format!("http://{address}"),
            child,
            folder,
        }
    }

    /// Returns the text of nginx's error log.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }
}

/// Returns PATH with the folders in which Debian installs nginx.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/usr/local/sbin")
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
