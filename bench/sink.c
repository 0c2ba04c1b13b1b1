/*
 * Copyright European Organization for Nuclear Research (CERN) since 2012
 *
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *    http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 *
 * A storage that costs nearly nothing, so that the limit of a client is seen: it speaks S3, remembers keys and sizes, lets the kernel
 * drop what is written, and answers with zeros. It verifies no signature, and trusts whoever connects: for 127.0.0.1 only.
 *
 *     cc -O2 -pthread -o sink sink.c && ./sink 7000
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 65536
#define ETAG "\"00000000000000000000000000000000-1\""
#define XML "Content-Type: application/xml\r\n"
#define DATE "Thu, 01 Jan 2026 00:00:00 GMT"

struct object {
    char *path; /* /bucket/key */
    long long size;
    int complete;
    struct object *next;
};

struct request {
    char method[16], path[4096], query[4096];
    long long length, size; /* of the body, and of the content in it */
    long long first, last;  /* of the range; -1 if there is none */
    int expects;
};

static struct object *objects;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char zeros[1 << 20];

/* With the lock held. */
static struct object *find(const char *path, int make)
{
    struct object *each;
    for (each = objects; each; each = each->next)
        if (!strcmp(each->path, path))
            return each;
    if (!make)
        return NULL;
    each = calloc(1, sizeof *each);
    each->path = strdup(path);
    each->next = objects;
    return objects = each;
}

static int send_all(int fd, const char *data, long long size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= sent;
    }
    return 0;
}

static int answer(int fd, const char *status, const char *headers, const char *body)
{
    char head[1024];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, headers, strlen(body));
    return send_all(fd, head, size) || send_all(fd, body, strlen(body));
}

/* Drop the body: the kernel never copies it to us. */
static int drop(int fd, long long size)
{
    while (size > 0) {
        ssize_t got = recv(fd, NULL, size < (1 << 22) ? size : 1 << 22, MSG_TRUNC);
        if (got <= 0)
            return -1;
        size -= got;
    }
    return 0;
}

/* Read to the empty line and no further; what is longer than HEAD_MAX is refused. */
static int read_head(int fd, char *head)
{
    int size = 0;
    for (;;) {
        ssize_t got = recv(fd, head, HEAD_MAX - 1, MSG_PEEK);
        if (got <= 0)
            return -1;
        head[got] = 0;
        char *end = strstr(head, "\r\n\r\n");
        if (end) {
            size = end - head + 4;
            got = recv(fd, head, size, MSG_WAITALL);
            head[size] = 0;
            return got == size ? 0 : -1;
        }
        if (got == HEAD_MAX - 1)
            return -1;
        usleep(100);
    }
}

/* %2F and its like. */
static void decode(char *text)
{
    char *to = text;
    for (char *from = text; *from; from++) {
        unsigned value;
        if (*from == '%' && sscanf(from + 1, "%2x", &value) == 1) {
            *to++ = (char)value;
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
}

static void parse(char *head, struct request *request)
{
    memset(request, 0, sizeof *request);
    request->first = request->last = request->size = -1;
    char *rest = head, *line = strsep(&rest, "\n"), target[8192];
    if (sscanf(line, "%15s %8191s", request->method, target) != 2)
        return;
    char *query = strchr(target, '?');
    if (query)
        *query++ = 0;
    snprintf(request->path, sizeof request->path, "%.4095s", target);
    snprintf(request->query, sizeof request->query, "%.4095s", query ? query : "");
    decode(request->path);
    while ((line = strsep(&rest, "\n"))) {
        if (!strncasecmp(line, "Content-Length:", 15))
            request->length = atoll(line + 15);
        else if (!strncasecmp(line, "X-Amz-Decoded-Content-Length:", 29))
            request->size = atoll(line + 29);
        else if (!strncasecmp(line, "Expect:", 7))
            request->expects = 1;
        else if (!strncasecmp(line, "Range:", 6))
            sscanf(line + 6, " bytes=%lld-%lld", &request->first, &request->last);
    }
    if (request->size < 0)
        request->size = request->length;
}

/* The value of a parameter, decoded. */
static void parameter(const char *query, const char *name, char *value, size_t room)
{
    size_t size = strlen(name);
    *value = 0;
    for (const char *at = query; at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
        if (!strncmp(at, name, size) && at[size] == '=')
            snprintf(value, room, "%.*s", (int)strcspn(at + size + 1, "&"), at + size + 1);
    decode(value);
}

/* One key of a listing, or the folder that it is in. */
static void entry(FILE *text, char *const *body, const char *key, size_t prefix, long long size, int folders)
{
    char folder[4096];
    const char *slash = folders ? strchr(key + prefix, '/') : NULL;
    if (!slash) {
        fprintf(text, "<Contents><Key>%s</Key><Size>%lld</Size><ETag>%s</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>", key, size, ETAG);
        return;
    }
    snprintf(folder, sizeof folder, "<CommonPrefixes><Prefix>%.*s</Prefix></CommonPrefixes>", (int)(slash + 1 - key), key);
    fflush(text);
    if (!strstr(*body, folder))
        fputs(folder, text);
}

static int list(int fd, const struct request *request)
{
    char prefix[2048], delimiter[16], whole[8192], *body = NULL;
    size_t size = 0;
    FILE *text = open_memstream(&body, &size);
    parameter(request->query, "prefix", prefix, sizeof prefix);
    parameter(request->query, "delimiter", delimiter, sizeof delimiter); /* mc sends an empty one */
    size_t bucket = strcspn(request->path + 1, "/") + 1;
    snprintf(whole, sizeof whole, "%.*s/%s", (int)bucket, request->path, prefix);
    fputs("<ListBucketResult><IsTruncated>false</IsTruncated>", text);
    pthread_mutex_lock(&lock);
    for (struct object *each = objects; each; each = each->next)
        if (each->complete && !strncmp(each->path, whole, strlen(whole)))
            entry(text, &body, each->path + bucket + 1, strlen(prefix), each->size, *delimiter == '/');
    pthread_mutex_unlock(&lock);
    fputs("</ListBucketResult>", text);
    fclose(text);
    int failed = answer(fd, "200 OK", XML, body);
    free(body);
    return failed;
}

static int get(int fd, const struct request *request)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(request->path, 0);
    long long size = object && object->complete ? object->size : -1;
    pthread_mutex_unlock(&lock);
    if (size < 0)
        return answer(fd, "404 Not Found", "", *request->method == 'H' ? "" : "<Error><Code>NoSuchKey</Code></Error>");
    long long first = request->first < 0 ? 0 : request->first;
    long long last = request->last < 0 || request->last >= size ? size - 1 : request->last;
    int part = request->first >= 0, written;
    char head[512], range[128] = "";
    if (part)
        snprintf(range, sizeof range, "Content-Range: bytes %lld-%lld/%lld\r\n", first, last, size);
    written = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nAccept-Ranges: bytes\r\nETag: %s\r\nLast-Modified: %s\r\n%sContent-Length: %lld\r\n\r\n",
                       part ? "206 Partial Content" : "200 OK", ETAG, DATE, range, last - first + 1);
    if (send_all(fd, head, written))
        return -1;
    for (long long left = *request->method == 'H' ? 0 : last - first + 1; left > 0; left -= sizeof zeros)
        if (send_all(fd, zeros, left < (long long)sizeof zeros ? left : (long long)sizeof zeros))
            return -1;
    return 0;
}

static int put(int fd, const struct request *request)
{
    int part = strstr(request->query, "uploadId=") != NULL;
    pthread_mutex_lock(&lock);
    struct object *object = find(request->path, 1);
    object->size = part ? object->size + request->size : request->size;
    object->complete |= !part;
    pthread_mutex_unlock(&lock);
    return answer(fd, "200 OK", "ETag: " ETAG "\r\n", "");
}

/* Each <Key> of the body. */
static int delete_objects(int fd, const struct request *request)
{
    char *body = calloc(1, request->length + 1), path[8192];
    int failed = recv(fd, body, request->length, MSG_WAITALL) != request->length;
    size_t bucket = strcspn(request->path + 1, "/") + 1;
    pthread_mutex_lock(&lock);
    for (char *key = body; !failed && (key = strstr(key, "<Key>")); key++) {
        snprintf(path, sizeof path, "%.*s/%.*s", (int)bucket, request->path, (int)strcspn(key + 5, "<"), key + 5);
        struct object *object = find(path, 0);
        if (object)
            object->complete = 0;
    }
    pthread_mutex_unlock(&lock);
    free(body);
    return failed || answer(fd, "200 OK", XML, "<DeleteResult></DeleteResult>");
}

static int post(int fd, const struct request *request)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(request->path, 1);
    int starts = !strncmp(request->query, "uploads", 7);
    if (starts)
        object->size = object->complete = 0;
    else
        object->complete = 1;
    pthread_mutex_unlock(&lock);
    return starts ? answer(fd, "200 OK", XML, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
                  : answer(fd, "200 OK", XML, "<CompleteMultipartUploadResult><Bucket>x</Bucket><Location>x</Location><Key>x</Key><ETag>" ETAG "</ETag></CompleteMultipartUploadResult>");
}

static int remove_object(int fd, const struct request *request)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(request->path, 0);
    if (object)
        object->complete = 0;
    pthread_mutex_unlock(&lock);
    return answer(fd, "204 No Content", "", "");
}

static int serve(int fd, const struct request *request)
{
    const char *key = strchr(request->path + 1, '/');
    if (request->expects && send_all(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return -1;
    if (!strncmp(request->query, "delete", 6))
        return delete_objects(fd, request);
    if (drop(fd, request->length))
        return -1;
    if (!strcmp(request->method, "PUT"))
        return put(fd, request);
    if (!strcmp(request->method, "POST"))
        return post(fd, request);
    if (!strcmp(request->method, "DELETE"))
        return remove_object(fd, request);
    return key && key[1] ? get(fd, request) : list(fd, request);
}

static void *connected(void *argument)
{
    int fd = (int)(long)argument, yes = 1;
    char *head = malloc(HEAD_MAX);
    struct request request;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    while (!read_head(fd, head)) {
        parse(head, &request);
        if (serve(fd, &request))
            break;
    }
    free(head);
    close(fd);
    return NULL;
}

int main(int count, char **words)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (count != 2)
        return 2;
    address.sin_port = htons(atoi(words[1]));
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1024)) {
        perror("sink");
        return 1;
    }
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        pthread_t thread;
        if (fd < 0)
            continue;
        if (pthread_create(&thread, NULL, connected, (void *)(long)fd))
            close(fd);
        else
            pthread_detach(thread);
    }
}
