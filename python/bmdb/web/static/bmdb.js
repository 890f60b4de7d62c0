// Keys, the theme, and how old what is shown is. Everything works without it, but for being live.
(() => {
  "use strict";
})();
