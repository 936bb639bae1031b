. /tmp/tryout/env.sh
echo "== HTTP"
for a in "-I" "-X OPTIONS -i" "-X POST -i -d x" "--http1.0 -i"; do curl -s -m 5 $a localhost:7401/health/ | head -3; done
curl -s -m5 -o /dev/null -w '%{http_code}\n' 'localhost:7401/health?x=1'; curl -s -m5 -o /dev/null -w '%{http_code}\n' 'localhost:7401/metrics/'; curl -s -m5 -o /dev/null -w '%{http_code}\n' 'localhost:7401/metrics//'; curl -s -m5 -o /dev/null -w '%{http_code}\n' 'localhost:7401/'; curl -s -m5 -o /dev/null -w '%{http_code}\n' -X TRACE 'localhost:7401/health';  curl -s -m5 -o /dev/null -w '%{http_code}\n' 'localhost:7401/HEALTH'
curl -s -m5 -o /dev/null -w '%{http_code}\n' -H 'Accept-Encoding: gzip' -H 'Accept: application/openmetrics-text' localhost:7401/metrics
.venv/bin/python - <<'P'
import socket,time,threading,urllib.request,os
pid=int(open('/tmp/tryout/trainer.pid').read())
def thr(): return len(os.listdir(f'/proc/{pid}/task'))
print('threads before',thr())
cs=[]
for n in range(200):
    s=socket.create_connection(('127.0.0.1',7401),timeout=3); s.sendall(b'GET /hea'); cs.append(s)
time.sleep(1); print('threads with 200 slow',thr())
t=time.time(); print(urllib.request.urlopen('http://127.0.0.1:7401/health',timeout=5).status, time.time()-t)
for s in cs: s.close()
time.sleep(1); print('threads after',thr())
# keep alive + pipelining + garbage
s=socket.create_connection(('127.0.0.1',7401),timeout=3)
s.sendall(b'GET /health HTTP/1.1\r\nHost: x\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n'); time.sleep(.5); d=s.recv(100000); print(d.count(b'HTTP/1.1 200'), d[-120:])
for g in [b'\x16\x03\x01\x02\x00\x01\x00\x01', b'GET\r\n\r\n', b'GET /health HTTP/9.9\r\n\r\n', b'\r\n\r\n\r\n', b'GET http://[::1/health HTTP/1.1\r\n\r\n', b'GET /'+b'a'*70000+b' HTTP/1.1\r\n\r\n', b'GET /health HTTP/1.1\r\n'+b'X: y\r\n'*200+b'\r\n', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', b'GET /health HTTP/1.1\r\nContent-Length: 100\r\n\r\n',b'GET /health\r\n', b'BREW /health HTTP/1.1\r\n\r\n']:
    s=socket.create_connection(('127.0.0.1',7401),timeout=3); s.sendall(g)
    try: print(g[:30], s.recv(1000)[:60])
    except Exception as e: print(g[:30], repr(e))
P
grep -c Traceback /tmp/tryout/trainer.log
