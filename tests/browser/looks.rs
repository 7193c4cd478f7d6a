//! Tests of the look and the accessibility of pages: on a phone and on a desktop, in light and
//! dark, in Chinese and English.

use crate::chromium::{Chromium, Tab};
use crate::demo::Demo;
use crate::screen::Screen;
use crate::sign_in;

/// JavaScript that returns the texts with too little contrast: below 4.5, or 3 for large text, as
/// WCAG says.
const FAINT: &str = r#"(() => {
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const style = getComputedStyle(e), color = rgb(style.backgroundColor);
      if (style.backgroundImage !== 'none') return null;
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), ground = behind(e);
    if (!ground) continue;
    const [a, b] = [light(rgb(style.color)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(e.textContent.trim() + ' ' + ratio.toFixed(2));
  }
  return found.join('; ');
})()"#;

/// JavaScript that returns the controls without a name, lower than 44 pixels, or out of reach of
/// the keyboard.
const OUT_OF_REACH: &str = r#"[...document.querySelectorAll('a, button, summary, input')]
  .filter(e => e.getClientRects().length)
  .filter(e => {
    const name = (e.getAttribute('aria-label') || e.innerText || '').trim();
    return !name || e.tabIndex < 0 || e.getBoundingClientRect().height < 44;
  })
  .map(e => e.outerHTML).join('; ')"#;

/// JavaScript that returns what is misplaced: texts that overlap or leave their box or the window,
/// and controls that overlap.
const IN_DISORDER: &str = r#"(() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walk.nextNode()) {
    const node = walk.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || !parent.checkVisibility()) continue;
    if (parent.closest('script, style, [aria-hidden]')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    texts.push({ name: node.textContent.trim(), parent, rect: range.getBoundingClientRect() });
  }
  const cross = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  for (const { name, parent, rect } of texts) {
    if (rect.left < 0 || rect.right > innerWidth) found.push(name + ' leaves the window');
    for (let e = parent; e && e !== document.body; e = e.parentElement) {
      const box = e.getBoundingClientRect(), shown = getComputedStyle(e);
      const boxed = e.matches('button, summary, .card, .button') || shown.overflow !== 'visible';
      if (boxed && (rect.left < box.left - 1 || rect.right > box.right + 1
          || rect.top < box.top - 1 || rect.bottom > box.bottom + 1)) {
        found.push(name + ' leaves ' + (e.id || e.className || e.tagName));
      }
    }
  }
  texts.forEach((a, at) => texts.slice(at + 1).forEach(b => {
    if (cross(a.rect, b.rect)) found.push(a.name + ' stands on ' + b.name);
  }));
  const controls = [...document.querySelectorAll('a, button, summary, input')]
    .filter(e => e.getClientRects().length);
  controls.forEach((a, at) => controls.slice(at + 1).forEach(b => {
    if (cross(a.getBoundingClientRect(), b.getBoundingClientRect())) {
      found.push(a.innerText + ' covers ' + b.innerText);
    }
  }));
  if (document.documentElement.scrollWidth > innerWidth) found.push('wider than the window');
  return found.join('; ');
})()"#;

/// JavaScript that returns the names of all controls in reading order: first the head of the page,
/// then each column from top to bottom and from left to right.
const READ: &str = r#"(() => {
  const head = document.querySelector('header').getBoundingClientRect().bottom;
  const columns = innerWidth > 800 ? innerWidth / 2 : Infinity;
  const key = box => [
    box.top > head && box.left > columns ? 1 : 0, Math.round(box.top / 8), box.left,
  ];
  return [...document.querySelectorAll('a, button, summary, input')]
    .filter(e => e.getClientRects().length)
    .map(e => ({ name: e.innerText.trim(), key: key(e.getBoundingClientRect()) }))
    .sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1] || a.key[2] - b.key[2])
    .map(e => e.name);
})()"#;

/// JavaScript that returns the name of the control with the focus, and what is wrong: no visible
/// outline, or outside of the window.
const FOCUSED: &str = r#"(() => {
  const e = document.activeElement, style = getComputedStyle(e);
  if (e === document.body) return ['', ''];
  const shown = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  const box = e.getBoundingClientRect();
  const inside = box.top > -1 && box.bottom < innerHeight + 1;
  return [e.innerText.trim(), (shown ? '' : 'no outline ') + (inside ? '' : `out of sight: ${box.top} to ${box.bottom} of ${innerHeight}`)];
})()"#;

const LANGUAGES: [(&str, &str); 2] = [("zh-CN", "立即续期"), ("en", "Renew now")];

/// Checks contrast, controls and positions, in the light and in the dark scheme, and saves
/// pictures.
pub async fn is_well_made(tab: &Tab, place: &str) {
    for dark in [false, true] {
        tab.dark(dark).await;
        // A change of the scheme fades the colours, so this waits for the end of all animations.
        tab.until("document.getAnimations().every(one => one.playState !== 'running')")
            .await;
        let place = format!("{place}, {}", if dark { "dark" } else { "light" });
        assert_eq!(tab.value(FAINT).await, "", "{place}: faint");
        assert_eq!(tab.value(OUT_OF_REACH).await, "", "{place}: out of reach");
        assert_eq!(tab.value(IN_DISORDER).await, "", "{place}: in disorder");
        tab.picture(&place.replace(", ", "-")).await;
    }
    tab.dark(false).await;
}

async fn is_well_made_on(screen: Screen) {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab_on(screen).await;
    sign_in(&tab, &demo.url).await;
    let screen = format!("{screen:?}").to_lowercase();
    for (language, text) in LANGUAGES {
        tab.shows(text).await;
        let lang = tab.value("document.documentElement.lang").await;
        assert_eq!(lang, language);
        is_well_made(&tab, &format!("page, {screen}, {language}")).await;
        // Opens the details and causes an entry in the log, so that all parts of the page are
        // visible.
        tab.press("summary").await;
        tab.until("/\\b[0-9a-f]{40}\\b/.test(document.querySelector('details').innerText)")
            .await;
        tab.press("#refuse").await;
        tab.until("document.querySelector('#log').children.length > 0")
            .await;
        tab.until("!document.querySelector('#refuse').disabled")
            .await;
        is_well_made(&tab, &format!("open, {screen}, {language}")).await;
        tab.press("summary").await;
        tab.press("#language").await;
    }
    tab.press("[data-logout='/logout']").await;
    tab.shows("已退出登录").await;
    is_well_made(&tab, &format!("goodbye, {screen}")).await;
    tab.press("main a").await;
    tab.shows("申请使用").await;
    tab.press("#deny").await;
    tab.shows("您已取消授权").await;
    is_well_made(&tab, &format!("denied, {screen}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_accessible_on_a_phone() {
    is_well_made_on(Screen::Phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_accessible_on_a_desktop() {
    is_well_made_on(Screen::Desktop).await;
}

/// Presses Tab through the whole page. The focus follows the reading order and is always visible.
#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_everything_in_reading_order() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    for screen in [Screen::Phone, Screen::Desktop] {
        let tab = browser.tab_on(screen).await;
        tab.open(&demo.url).await;
        tab.until("!!document.querySelector('#allow, #renew')")
            .await;
        if tab.value("!!document.querySelector('#allow')").await == true {
            tab.press("#allow").await;
        }
        for (_, text) in LANGUAGES {
            tab.shows(text).await;
            // After a reload, Tab begins at the start of the page and not at the last focus.
            tab.value("window.old = true").await;
            tab.reload().await;
            tab.until("!window.old && document.readyState === 'complete'")
                .await;
            tab.shows(text).await;
            let read = tab.value(READ).await;
            let read = read.as_array().unwrap();
            assert!(read.len() >= 6, "{read:?}");
            for name in read {
                tab.key("Tab").await;
                let focused = tab.value(FOCUSED).await;
                assert_eq!(&focused[0], name, "{screen:?}: of {read:?}");
                assert_eq!(focused[1], "", "{screen:?}: {name}");
            }
            tab.value("document.querySelector('#language').focus()")
                .await;
            tab.key("Enter").await;
        }
        tab.shows(LANGUAGES[0].1).await;
    }
}

/// Operates the controls by keyboard. The focus stays on the control, or moves to the next link.
#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_operates_every_control() {
    let demo = Demo::start().await;
    let browser = Chromium::start();
    let tab = browser.tab_on(Screen::Desktop).await;
    sign_in(&tab, &demo.url).await;
    let focus = async |selector: &str| {
        let focus = format!("document.querySelector(\"{selector}\").focus()");
        tab.value(&focus).await;
        tab.key("Enter").await;
    };
    focus("#refuse").await;
    tab.until("document.querySelector('#log').children.length > 0")
        .await;
    tab.until("document.activeElement.id === 'refuse'").await;
    focus("summary").await;
    tab.until("document.querySelector('details').open").await;
    focus("[data-logout='/logout']").await;
    tab.shows("已退出登录").await;
    // After the logout the focus is on the link of the new page.
    tab.until("document.activeElement.matches('main a')").await;
    tab.key("Enter").await;
    tab.shows("申请使用").await;
}
