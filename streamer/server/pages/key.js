// The API key of this browser tab: asked for when the server wants one, kept until the tab is closed.
const field = document.getElementById("key");
const label = document.getElementById("key-label");

field.value = sessionStorage.getItem("key") ?? "";
label.hidden = !field.value;
field.addEventListener("change", () => sessionStorage.setItem("key", field.value));

export function headers() {
  return field.value ? { "X-API-KEY": field.value } : {};
}

export function ask() {
  label.hidden = false;
  field.focus();
}
