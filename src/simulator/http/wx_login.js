// A small twin of WeChat's wxLogin.js. `new WxLogin({...})` puts a frame with the simulator's page
// connect/qrconnect into the element `id`. As in WeChat's script, the values are not encoded here:
// the page passes `redirect_uri` percent-encoded.
(function (window, document) {
  "use strict";

  var simulator = document.currentScript.src.split("/connect/zh_CN/")[0];

  function WxLogin(options) {
    var selfRedirect = "default";
    if (options.self_redirect === true) selfRedirect = "true";
    if (options.self_redirect === false) selfRedirect = "false";
    var url = simulator + "/connect/qrconnect?appid=" + options.appid + "&scope=" + options.scope +
      "&redirect_uri=" + options.redirect_uri + "&state=" + (options.state || "") +
      "&login_type=jssdk&self_redirect=" + selfRedirect;
    ["styletype", "sizetype", "bgcolor", "rst", "style", "href", "stylelite", "fast_login", "lang"]
      .forEach(function (name) {
        if (options[name] !== undefined) url += "&" + name + "=" + options[name];
      });

    var frame = document.createElement("iframe");
    frame.src = url;
    frame.width = "300px";
    frame.height = "400px";
    frame.setAttribute("frameBorder", "0");
    frame.setAttribute("scrolling", "no");
    if (typeof options.onReady === "function") {
      frame.onload = function () { options.onReady(true); };
    }
    var parent = document.getElementById(options.id);
    parent.innerHTML = "";
    parent.appendChild(frame);
  }

  window.WxLogin = WxLogin;
})(window, document);
