// Run by the health check: makes the replica set of one, and the user as whom docker_auth asks,
// which does not start without a name and a password.
const admin = db.getSiblingDB("admin");
try {
  rs.status();
} catch (error) {
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] });
}
if (!db.hello().isWritablePrimary) {
  quit(1);
}
if (!admin.getUser("docker_auth")) {
  const pwd = require("fs").readFileSync("/run/secrets/mongodb-password", "utf8").trim();
  admin.createUser({ user: "docker_auth", pwd, roles: [{ role: "readWrite", db: "registry" }] });
}
