// The servers that help to connect, from the Link headers of a WHEP endpoint.
const LINK = /<([^>]+)>; rel="ice-server"(?:; username=("(?:[^"\\]|\\.)*"); credential=("(?:[^"\\]|\\.)*"))?/g;

export function iceServers(links) {
  return [...(links ?? "").matchAll(LINK)].map(([, urls, username, credential]) => (
    username ? { urls, username: JSON.parse(username), credential: JSON.parse(credential) } : { urls }
  ));
}
